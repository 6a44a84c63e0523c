#include "export/report_page.h"

#include "core/json.h"
#include "export/report_template.h"

namespace pennyweight {

namespace {

// JSON that an HTML parser can't see the end of: in JSON these three stand in
// strings only, where an escape means the same. Everything beyond ASCII,
// U+2028 with it, is escaped by dump().
std::string script_json(const Json& data) {
  auto text = data.dump(-1, ' ', true, Json::error_handler_t::replace);
  std::string safe;
  safe.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '<':
        safe += "\\u003c";
        break;
      case '>':
        safe += "\\u003e";
        break;
      case '&':
        safe += "\\u0026";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

}  // namespace

std::string report_page(const Json& data) {
  std::string page(kReportHead);
  page += script_json(data);
  page += kReportTail;
  return page;
}

}  // namespace pennyweight
