#pragma once

#include <string>
#include <vector>

#include "model/model.h"

namespace pennyweight {

/// A tensor of ModelTensors on a way through all of them.
struct OrderedTensor {
  std::string name;
  /// Files of the checkpoint that no later one is read from.
  std::vector<std::string> done_with;
};

/// All tensors of a model: by name; of one whose files are brought as they are
/// read, by their files, so that each is brought once, but where one tensor is
/// made of many files.
std::vector<OrderedTensor> tensor_order(const Model& model);

}  // namespace pennyweight
