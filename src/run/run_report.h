#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "export/mtp.h"
#include "text/data_use.h"

namespace pennyweight {

/// What a command has come to; one type for all commands. What only one of
/// them tells is in `figures` and `text`.
struct RunReport {
  std::string output{};  // what was written; empty: nothing
  std::string data{};    // where the text is from, in words; empty: none
  std::optional<DataUse> data_use{};  // rows and files, used and left out
  int64_t parameters = 0;             // of the model, as if not quantized
  int64_t bytes_in = 0;               // tensor bytes of the model read
  int64_t bytes_out = 0;              // and of the one written; 0: none was
  CarriedHeads mtp{};          // beside the model, and not among its bytes
  double bits_per_weight = 0;  // of what was written, scales included
  double seconds = 0;
  int64_t peak_rss = 0;  // bytes, of the whole process so far
  int processes = 1;
  Json packed_source{};  // PackedSource::json() of the model; null: it is plain
  Json published_packed{};  // published_json() of the model; null: nothing
  std::vector<std::string> notes{};  // each was a warning event, too
  Json figures = Json::object();     // more keys of the JSON
  std::string text{};                // more lines of the summary
};

/// One object, with the keys of `figures` among the rest; what was not set is
/// left out.
Json to_json(const RunReport& report);

/// A line for each note, for a report's text.
std::string notes_text(const RunReport& report);

/// For a reader: report.text, then size, time and place.
std::string summary(const RunReport& report);

}  // namespace pennyweight
