#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model.h"

namespace pennyweight {

/// Where a model lies, links resolved, and what it holds.
struct ModelIdentity {
  std::string folder;
  std::string content;  // see fingerprint()
};

/// 32 hex digits that tell models apart: of config.json, and of each tensor
/// that an output is made from the name, type, shape and all bytes. Reads the
/// weights once, on all threads, and gives their pages back; a second time in
/// one process only where a file has been written to since. The number of
/// threads does not matter. io Error for a file that is written to meanwhile.
std::string fingerprint(const Model& model);
ModelIdentity identify(const Model& model);

/// The same of token sequences, all of them.
std::string fingerprint(const std::vector<std::vector<int32_t>>& sequences);

}  // namespace pennyweight
