#include "method/awq_search.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "calibration/floats.h"
#include "core/error.h"
#include "method/pack_result.h"
#include "ops/primitive.h"

namespace pennyweight {

namespace {

/// Neighbouring heads that one channel of the previous op feeds share a
/// scale.
void share_means(const ScaleGroup& scaling, std::vector<float>& means) {
  const auto size = static_cast<size_t>(scaling.head_dim);
  const auto repeat = static_cast<size_t>(scaling.repeat);
  for (size_t head = 0; repeat > 1 && head * size < means.size();
       head += repeat) {
    for (size_t d = 0; d < size; ++d) {
      double sum = 0;
      for (size_t r = 0; r < repeat; ++r) {
        sum += double(means[(head + r) * size + d]);
      }
      for (size_t r = 0; r < repeat; ++r) {
        means[(head + r) * size + d] = float(sum / double(repeat));
      }
    }
  }
}

/// The scale group of exactly these inputs, if the block has one.
std::optional<ScaleGroup> find_scaling(
    const BlockSpec& block,
    const LinearGroup& group) {
  for (const ScaleGroup& scaling : list_scale_groups(block)) {
    const bool covers =
        std::all_of(
            group.modules.begin(),
            group.modules.end(),
            [&](const ModuleSpec& module) {
              return std::ranges::count(scaling.linears, module.path) == 1;
            }) &&
        scaling.channels == group.modules.front().in;
    if (covers) {
      return scaling;
    }
  }
  return std::nullopt;
}

}  // namespace

AwqInputs take_inputs(BlockTask& task, const LinearGroup& group) {
  auto sums = task.statistics(group, {.magnitudes = true});
  AwqInputs inputs{
      group,
      to_vector(sums.hessian),
      to_vector(*sums.magnitudes),
      find_scaling(task.spec(), group)};
  for (float& mean : inputs.means) {
    mean /= float(std::max<int64_t>(1, sums.tokens));
  }
  if (inputs.scaling) {
    share_means(*inputs.scaling, inputs.means);
  }
  return inputs;
}

GptqResult round_module(
    const BlockTask& task,
    const ModuleSpec& module,
    const AwqInputs& inputs,
    const Scales& columns,
    const Scales& rows,
    const AwqOptions& options) {
  auto weight = task.weight(module.path);
  const auto data = [](const Scales& scales) {
    return scales.empty() ? nullptr : scales.data();
  };
  try {
    return awq_round(
        {weight.data<float>(),
         module.out,
         module.in,
         inputs.gram.data(),
         data(columns),
         data(rows)},
        task.quant_spec(module.path),
        ops::kernel_type(task.dtype()),
        options);
  } catch (const Error& error) {
    throw about("awq", module.path, error);
  }
}

mx::array unscaled(
    const BlockTask& task,
    const ops::QuantizedWeight& packed,
    const Scales& columns,
    const Scales& rows) {
  auto dense = task.expand(packed);
  if (columns.empty() && rows.empty()) {
    return dense;
  }
  dense = mx::astype(dense, mx::float32);
  if (!columns.empty()) {
    dense = mx::divide(dense, to_array(columns));
  }
  if (!rows.empty()) {
    dense = mx::multiply(dense, mx::expand_dims(to_array(rows), 1));
  }
  dense = mx::astype(dense, task.dtype());
  mx::eval(dense);
  return dense;
}

namespace {

/// Loss of the group's linears, and where asked for their weights.
double group_loss(
    const BlockTask& task,
    const AwqInputs& inputs,
    const Scales& scales,
    const AwqOptions& options,
    DenseBlock* dense) {
  double loss = 0;
  for (const ModuleSpec& module : inputs.group.modules) {
    auto result = round_module(task, module, inputs, scales, {}, options);
    loss += result.figures.loss;
    if (dense) {
      auto packed =
          pack_result(result, task.quant_spec(module.path), task.dtype());
      dense->insert_or_assign(module.path, unscaled(task, packed, scales, {}));
    }
  }
  return loss;
}

}  // namespace

Json search_scales(
    BlockTask& task,
    const AwqOptions& options,
    AwqInputs& inputs) {
  AwqOptions plain = options;
  plain.clip = false;
  std::vector<Scales> candidates{{}};
  std::vector<double> losses{group_loss(task, inputs, {}, plain, nullptr)};
  for (int step = 1; step < options.n_grid; ++step) {
    const double ratio = double(step) / options.n_grid;
    auto scales =
        task.foldable(*inputs.scaling, awq_scales(inputs.means, ratio));
    losses.push_back(group_loss(task, inputs, scales, plain, nullptr));
    candidates.push_back(std::move(scales));
  }
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) {
    return losses[i] < losses[j];
  });
  order.resize(std::min(order.size(), size_t(options.confirm)));
  size_t best = order.front();
  if (order.size() > 1) {
    double least = INFINITY;
    for (size_t i : order) {
      DenseBlock dense;
      group_loss(task, inputs, candidates[i], plain, &dense);
      const double error = task.fit_error(dense);
      if (error < least) {
        least = error;
        best = i;
      }
    }
  }
  inputs.scales = candidates[best];
  return {
      {"ratio", double(best) / options.n_grid},
      {"loss_share", losses[0] > 0 ? losses[best] / losses[0] : 1.0}};
}

}  // namespace pennyweight
