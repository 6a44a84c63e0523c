#pragma once

#include <string_view>

namespace pennyweight {

/// src/export/report/ as one page, up to where the data goes and on from
/// there; made by cmake/report_template.cmake.
extern const std::string_view kReportHead;
extern const std::string_view kReportTail;

}  // namespace pennyweight
