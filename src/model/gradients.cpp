#include "model/gradients.h"

#include <mlx/transforms.h>

namespace pennyweight {

namespace {

// MLX's own ops give gradients in the weights' type.
mx::array as_float32(const mx::array& x) {
  return mx::astype(x, mx::float32);
}

// The weights with values[first], values[first + 1], ... as those of `linears`.
BlockWeights replaced(
    const BlockWeights& weights,
    const std::vector<std::string>& linears,
    const std::vector<mx::array>& values,
    size_t first) {
  auto own = weights;
  for (size_t i = 0; i < linears.size(); ++i) {
    own.linears.at(linears[i]).dense = values[first + i];
  }
  return own;
}

}  // namespace

BlockGradients block_gradients(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::vector<std::string>& linears,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context) {
  std::vector<mx::array> primals{x};
  for (const auto& path : linears) {
    primals.push_back(*weights.linears.at(path).dense);
  }
  const auto forward = [&](const std::vector<mx::array>& values) {
    const auto own = replaced(weights, linears, values, 1);
    return std::vector<mx::array>{run_block(spec, own, values[0], context)};
  };
  const auto gradients = mx::vjp(forward, primals, {dy}).second;
  BlockGradients result{gradients[0], {}};
  for (size_t i = 0; i < linears.size(); ++i) {
    result.weights.emplace(linears[i], as_float32(gradients[i + 1]));
  }
  return result;
}

LossGradients loss_gradients(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::vector<std::string>& linears,
    const mx::array& x,
    const OutputLoss& loss,
    const ForwardContext& context) {
  std::vector<mx::array> primals;
  for (const auto& path : linears) {
    primals.push_back(*weights.linears.at(path).dense);
  }
  const auto forward = [&](const std::vector<mx::array>& values) {
    const auto own = replaced(weights, linears, values, 0);
    return std::vector<mx::array>{loss(run_block(spec, own, x, context))};
  };
  const auto [losses, gradients] = mx::vjp(forward, primals, {mx::array(1.0f)});
  LossGradients result{losses[0], {}};
  for (size_t i = 0; i < linears.size(); ++i) {
    result.weights.emplace(linears[i], as_float32(gradients[i]));
  }
  return result;
}

BlockTraces trace_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context) {
  auto own = weights;
  std::map<std::string, std::shared_ptr<LinearTrace>> traces;
  for (const ModuleSpec& module : list_modules(spec)) {
    if ((module.expert && module.part != 0) || module.published) {
      continue;
    }
    const auto trace = std::make_shared<LinearTrace>();
    own.linears.at(module.path).trace = trace;
    traces.emplace(module.expert ? module.stored : module.path, trace);
  }
  const auto forward = [&](const std::vector<mx::array>& values) {
    return std::vector<mx::array>{run_block(spec, own, values[0], context)};
  };
  BlockTraces result{mx::vjp(forward, {x}, {dy}).second[0], {}};
  for (const auto& [path, trace] : traces) {
    if (trace->dy) {
      result.linears.emplace(path, std::move(*trace));
    }
  }
  return result;
}

}  // namespace pennyweight
