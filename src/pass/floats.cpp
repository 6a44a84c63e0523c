#include "pass/floats.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "ops/evaluated.h"

namespace pennyweight {

mx::array to_array(const std::vector<float>& values) {
  return mx::array(values.data(), {static_cast<int>(values.size())});
}

std::vector<float> to_vector(const mx::array& array) {
  auto dense = evaluated(mx::contiguous(array));
  return {dense.data<float>(), dense.data<float>() + dense.size()};
}

}  // namespace pennyweight
