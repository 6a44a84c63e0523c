#include "method/awq/search.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/json.h"
#include "method/pack_result.h"
#include "ops/primitive.h"
#include "pass/floats.h"
#include "pass/fold.h"

namespace pennyweight {

namespace {

/// Input channels that one channel of the previous op feeds share a scale.
void share_means(const ScaleGroup& group, std::vector<float>& means) {
  if (group.from.empty()) {
    return;
  }
  std::vector<double> sums(static_cast<size_t>(group.outputs), 0.0);
  std::vector<double> counts(sums.size(), 0.0);
  for (size_t c = 0; c < means.size(); ++c) {
    sums[static_cast<size_t>(group.from[c])] += double(means[c]);
    counts[static_cast<size_t>(group.from[c])] += 1;
  }
  for (size_t c = 0; c < means.size(); ++c) {
    const auto from = static_cast<size_t>(group.from[c]);
    means[c] = float(sums[from] / counts[from]);
  }
}

/// Over all tokens that any of the linears read.
std::vector<float> shared_means(
    const AwqBlock& block,
    const AwqScaling& scaling) {
  std::vector<double> sums(static_cast<size_t>(scaling.group.channels), 0.0);
  double tokens = 0;
  for (size_t member : scaling.members) {
    const AwqInputs& inputs = block.inputs[member];
    tokens += double(inputs.tokens);
    for (size_t c = 0; c < sums.size(); ++c) {
      sums[c] += double(inputs.means[c]) * double(inputs.tokens);
    }
  }
  std::vector<float> means;
  for (double sum : sums) {
    means.push_back(float(sum / std::max(1.0, tokens)));
  }
  share_means(scaling.group, means);
  return means;
}

AwqInputs take_inputs(BlockTask& task, const LinearGroup& group) {
  auto sums = task.statistics(group, {.magnitudes = true});
  AwqInputs inputs{
      group, sums.tokens, to_vector(sums.hessian), to_vector(*sums.magnitudes)};
  for (float& mean : inputs.means) {
    mean /= float(std::max<int64_t>(1, sums.tokens));
  }
  return inputs;
}

}  // namespace

Scales AwqBlock::columns(size_t input) const {
  for (const AwqScaling& scaling : scalings) {
    if (std::ranges::count(scaling.members, input) > 0) {
      return scaling.scales;
    }
  }
  return {};
}

Scales AwqBlock::rows(const std::string& path) const {
  for (const AwqScaling& scaling : scalings) {
    if (scaling.group.previous == path && !scaling.scales.empty() &&
        scaling.group.kind == ScaleGroup::Previous::linear) {
      return previous_scales(scaling.group, scaling.scales);
    }
  }
  return {};
}

AwqBlock take_inputs(BlockTask& task) {
  AwqBlock block;
  for (const LinearGroup& group : task.groups()) {
    block.inputs.push_back(take_inputs(task, group));
  }
  for (const ScaleGroup& group : list_scale_groups(task.spec())) {
    if (!task.can_fold(group)) {
      block.unfoldable.push_back(group.previous);
      continue;
    }
    AwqScaling scaling{group, {}};
    for (size_t i = 0; i < block.inputs.size(); ++i) {
      const auto& modules = block.inputs[i].group.modules;
      if (std::ranges::all_of(modules, [&](const ModuleSpec& module) {
            return std::ranges::count(group.linears, module.path) == 1;
          })) {
        scaling.members.push_back(i);
      }
    }
    if (!scaling.members.empty()) {
      block.scalings.push_back(std::move(scaling));
    }
  }
  return block;
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
        task.quant_spec(module),
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
    dense = dense / to_array(columns);
  }
  if (!rows.empty()) {
    dense = dense * mx::expand_dims(to_array(rows), 1);
  }
  dense = mx::astype(dense, task.dtype());
  mx::eval(dense);
  return dense;
}

namespace {

/// Loss of the linears, and where asked for their weights.
double scaling_loss(
    const BlockTask& task,
    const AwqBlock& block,
    const AwqScaling& scaling,
    const Scales& scales,
    const AwqOptions& options,
    DenseBlock* dense) {
  double loss = 0;
  for (size_t member : scaling.members) {
    const AwqInputs& inputs = block.inputs[member];
    for (const ModuleSpec& module : inputs.group.modules) {
      auto result = round_module(task, module, inputs, scales, {}, options);
      loss += result.figures.loss;
      if (dense) {
        auto packed =
            pack_result(result, task.quant_spec(module), task.dtype());
        dense->insert_or_assign(
            module.path, unscaled(task, packed, scales, {}));
      }
    }
  }
  return loss;
}

}  // namespace

Json search_scales(
    BlockTask& task,
    const AwqOptions& options,
    const AwqBlock& block,
    AwqScaling& scaling) {
  AwqOptions plain = options;
  plain.clip = false;
  std::vector<Scales> candidates{{}};
  std::vector<double> losses{
      scaling_loss(task, block, scaling, {}, plain, nullptr)};
  const auto means = shared_means(block, scaling);
  for (int step = 1; step < options.n_grid; ++step) {
    const double ratio = double(step) / options.n_grid;
    auto scales = task.foldable(scaling.group, awq_scales(means, ratio));
    losses.push_back(
        scaling_loss(task, block, scaling, scales, plain, nullptr));
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
      scaling_loss(task, block, scaling, candidates[i], plain, &dense);
      const double error = task.fit_error(dense);
      if (error < least) {
        least = error;
        best = i;
      }
    }
  }
  scaling.scales = candidates[best];
  return {
      {"ratio", double(best) / options.n_grid},
      {"loss_share", losses[0] > 0 ? losses[best] / losses[0] : 1.0}};
}

}  // namespace pennyweight
