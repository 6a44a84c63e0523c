#include "method/widths/cost_sums.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <utility>

namespace pennyweight {

namespace {

/// sum += x x^T over rows, in the sum's own memory.
void add_gram(std::optional<mx::array>& sum, const mx::array& x) {
  const int in = x.shape(1);
  auto before = std::exchange(sum, std::nullopt);
  if (!before) {
    before = mx::zeros({in, in});
  }
  auto after = ops::gram_add(*before, {x}, x);
  before.reset();
  mx::eval(after);
  sum = std::move(after);
}

/// Each row of x times its own factor; in a type that holds small ones.
mx::array scaled(const mx::array& x, const mx::array& factors) {
  const auto type = x.dtype() == mx::float16 ? mx::float32 : x.dtype();
  return mx::multiply(mx::astype(x, type), mx::astype(factors, type));
}

/// Rows of tokens; of experts those of padding too.
void pick(const TokenBatch& batch, LinearTrace& trace) {
  const auto rows = [&](const mx::array& x) {
    const int length = batch.tokens.shape(1);
    return pick_tokens(batch, mx::reshape(x, {-1, length, x.shape(-1)}));
  };
  if (!trace.expert) {
    trace.x = rows(*trace.x);
    trace.dy = rows(*trace.dy);
  }
}

}  // namespace

CostSums::CostSums(const BlockSpec& spec) : spec_(spec) {
  for (const ModuleSpec& module : list_modules(spec)) {
    if ((!module.expert || module.part == 0) && !module.published) {
      const auto path = module.expert ? module.stored : module.path;
      modules_.emplace(path, module);
    }
  }
}

mx::array CostSums::add(
    const BlockWeights& weights,
    const TokenBatch& batch,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context) {
  auto traces = trace_block(spec_, weights, x, dy, context);
  std::vector<mx::array> wanted{traces.x};
  for (const auto& [path, trace] : traces.linears) {
    wanted.insert(wanted.end(), {*trace.x, *trace.dy});
    if (trace.expert) {
      wanted.push_back(*trace.expert);
    }
  }
  mx::eval(wanted);
  wanted.clear();
  add(batch, std::move(traces.linears));
  return traces.x;
}

void CostSums::add(
    const TokenBatch& batch,
    std::map<std::string, LinearTrace> linears) {
  std::map<std::string, bool> counted;
  for (auto& [path, trace] : linears) {
    const ModuleSpec& module = modules_.at(path);
    pick(batch, trace);
    const auto& [own, first] = sums_.try_emplace(
        path,
        Linear{
            GradientSums(module.out, module.expert ? module.count : 1),
            std::nullopt});
    const auto weights = own->second.gradients.add(*trace.dy, trace.expert);
    auto& x = *trace.x;
    if (module.expert && batch.picks) {
      // Padding has no gradient.
      x = scaled(
          x, mx::astype(mx::greater(weights, mx::array(0.0f)), mx::float32));
    }
    add_gram(own->second.metric, scaled(x, mx::sqrt(weights)));
    if (!std::exchange(counted[module.input_id], true)) {
      add_gram(hessians_[module.input_id], x);
    }
    trace = {};
  }
}

}  // namespace pennyweight
