#pragma once

#include <nlohmann/json_fwd.hpp>

namespace pennyweight {

/// Keeps the order of keys, so that a config is written as it was read. Only
/// declared here, for headers, so that sources that pass a Json on without
/// looking into it compile faster.
using Json = nlohmann::ordered_json;

}  // namespace pennyweight
