#include "model/gradients.h"

#include <mlx/transforms.h>

namespace pennyweight {

BlockGradients block_gradients(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context) {
  std::vector<std::string> paths;
  std::vector<mx::array> primals{x};
  for (const auto& [path, linear] : weights.linears) {
    if (linear.dense) {
      paths.push_back(path);
      primals.push_back(*linear.dense);
    }
  }
  const auto forward = [&](const std::vector<mx::array>& values) {
    auto own = weights;
    for (size_t i = 0; i < paths.size(); ++i) {
      own.linears.at(paths[i]).dense = values[i + 1];
    }
    return std::vector<mx::array>{run_block(spec, own, values[0], context)};
  };
  const auto gradients = mx::vjp(forward, primals, {dy}).second;
  BlockGradients result{gradients[0], {}};
  for (size_t i = 0; i < paths.size(); ++i) {
    result.weights.emplace(paths[i], gradients[i + 1]);
  }
  return result;
}

}  // namespace pennyweight
