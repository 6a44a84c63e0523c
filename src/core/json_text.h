#pragma once

#include <string>

#include "core/json.h"

namespace pennyweight {

/// As text, on one line or indented. Bytes that are no UTF-8, which a path may
/// hold, are replaced.
inline std::string to_text(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace pennyweight
