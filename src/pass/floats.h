#pragma once

#include <vector>

#include "ops/ops.h"

namespace pennyweight {

/// float32 [size].
mx::array to_array(const std::vector<float>& values);

/// All elements of a float32 array, row by row; evaluates it.
std::vector<float> to_vector(const mx::array& array);

}  // namespace pennyweight
