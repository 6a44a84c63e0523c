#pragma once

#include <string>

#include "core/json_fwd.h"

namespace pennyweight {

/// The report of a run as one HTML page that needs nothing beside it: no
/// network, no font, no other file. `data` has the keys that docs/report.md
/// lists; any may be absent or null, and its part of the page is then left
/// out. Strings are taken as hostile: no text, however malformed, can become
/// markup or script. Bytes that are no UTF-8 show as U+FFFD, numbers that are
/// not finite as missing.
std::string report_page(const Json& data);

}  // namespace pennyweight
