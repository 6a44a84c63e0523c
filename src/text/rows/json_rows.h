#pragma once

#include "text/byte_file.h"
#include "text/rows/row_sink.h"

namespace pennyweight {

/// JSON lines of a file of any size; one list over the whole file is read as
/// its elements.
void read_json_lines(const ByteFile& file, const RowSink& sink);

/// A .json file of any size: a list of rows, an object that holds one (see
/// read_rows) or is one, or JSON lines.
void read_json_document(const ByteFile& file, const RowSink& sink);

}  // namespace pennyweight
