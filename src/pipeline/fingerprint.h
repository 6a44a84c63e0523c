#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model.h"

namespace pennyweight {

/// 16 hex digits that tell models apart: of config.json, and of each tensor
/// the name, type, shape and first and last bytes. Not all bytes are read.
std::string fingerprint(const Model& model);

/// The same of token sequences, all of them.
std::string fingerprint(const std::vector<std::vector<int32_t>>& sequences);

}  // namespace pennyweight
