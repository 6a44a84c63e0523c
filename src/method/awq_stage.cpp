#include "method/awq_stage.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "calibration/fold.h"
#include "core/error.h"
#include "method/pack_result.h"
#include "ops/primitive.h"

namespace pennyweight {

using Scales = std::vector<float>;

/// A group of linears with what is known of their inputs.
struct AwqInputs {
  LinearGroup group;
  std::vector<float> gram;   // [in, in]
  std::vector<float> means;  // of |x| [in]
  std::optional<ScaleGroup> scaling;
  Scales scales{};  // chosen; empty: none
};

namespace {

/// How a block is rounded.
struct Variant {
  std::string name;
  bool scaled;
  bool clipped;
  PackedBlock packed{};
  DenseBlock dense{};  // before scaling
  double loss = 0;
  std::optional<double> error{};
};

mx::array to_array(const Scales& values) {
  return mx::array(values.data(), {static_cast<int>(values.size())});
}

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

AwqInputs take_inputs(BlockTask& task, const LinearGroup& group) {
  auto sums = task.statistics(group, {.magnitudes = true});
  const auto& gram = sums.hessian;
  const auto& magnitudes = *sums.magnitudes;
  AwqInputs inputs{group, {}, {}, find_scaling(task.spec(), group)};
  inputs.gram.assign(gram.data<float>(), gram.data<float>() + gram.size());
  inputs.means.assign(
      magnitudes.data<float>(), magnitudes.data<float>() + magnitudes.size());
  for (float& mean : inputs.means) {
    mean /= float(std::max<int64_t>(1, sums.tokens));
  }
  if (inputs.scaling) {
    share_means(*inputs.scaling, inputs.means);
  }
  return inputs;
}

/// The linear rounded in its scaled form.
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
    throw Error(
        error.code(), "awq", module.path + ": " + std::string(error.what()));
  }
}

/// What the packed weight stands for before scaling.
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
      auto packed = pack_result(
          result,
          task.quant_spec(module.path),
          int(module.out),
          int(module.in),
          task.dtype());
      dense->insert_or_assign(module.path, unscaled(task, packed, scales, {}));
    }
  }
  return loss;
}

/// The ratio grid, by the Gram matrix and then by the block's output. Leaves
/// the scales empty where none is better than ones.
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

std::vector<Variant> list_variants(const AwqOptions& options, bool scaled) {
  std::vector<Variant> variants;
  const bool scales = options.scale && scaled;
  if (scales && options.clip) {
    variants.push_back({"scaled and clipped", true, true});
  }
  if (scales) {
    variants.push_back({"scaled", true, false});
  }
  if (options.clip) {
    variants.push_back({"clipped", false, true});
  }
  variants.push_back({"round to nearest", false, false});
  return variants;
}

/// Scales of a linear's rows: those of the group whose previous op it is.
Scales row_scales(const std::vector<AwqInputs>& all, const std::string& path) {
  for (const AwqInputs& inputs : all) {
    if (inputs.scaling && !inputs.scales.empty() &&
        inputs.scaling->kind == ScaleGroup::Previous::linear &&
        inputs.scaling->previous == path) {
      return previous_scales(*inputs.scaling, inputs.scales);
    }
  }
  return {};
}

void round_block(
    const BlockTask& task,
    const std::vector<AwqInputs>& all,
    const AwqOptions& options,
    Variant& variant) {
  AwqOptions parts = options;
  parts.clip = variant.clipped;
  for (const AwqInputs& inputs : all) {
    const Scales columns = variant.scaled ? inputs.scales : Scales{};
    for (const ModuleSpec& module : inputs.group.modules) {
      const Scales rows =
          variant.scaled ? row_scales(all, module.path) : Scales{};
      auto result = round_module(task, module, inputs, columns, rows, parts);
      variant.loss += result.figures.loss;
      auto packed = pack_result(
          result,
          task.quant_spec(module.path),
          int(module.out),
          int(module.in),
          task.dtype());
      variant.dense.insert_or_assign(
          module.path, unscaled(task, packed, columns, rows));
      variant.packed.insert_or_assign(module.path, std::move(packed));
    }
  }
}

/// On held-out text where there is some, else by the Gram matrices' losses.
size_t choose(BlockTask& task, std::vector<Variant>& variants) {
  size_t best = 0;
  for (size_t i = 0; i < variants.size(); ++i) {
    Variant& variant = variants[i];
    variant.error =
        task.has_held_out() ? task.held_out_error(variant.dense) : variant.loss;
    if (*variant.error < *variants[best].error) {
      best = i;
    }
  }
  return best;
}

void fold_all(BlockTask& task, const std::vector<AwqInputs>& all) {
  for (const AwqInputs& inputs : all) {
    if (!inputs.scales.empty()) {
      task.fold(*inputs.scaling, inputs.scales);
    }
  }
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f %%", 100 * share);
  return text;
}

}  // namespace

// What loses least rounded to nearest may lose more under error feedback, so
// that both ways are gone.
void AwqStage::run_then(
    BlockTask& task,
    const std::vector<AwqInputs>& all,
    bool scaled,
    BlockOutcome& outcome) {
  Json figures = Json::object();
  task.restart();
  auto chosen = then_->run(task);
  std::string kept = "unscaled";
  if (chosen.error) {
    figures["held_out_error"] = {
        {kept, *chosen.error},
        {"round to nearest",
         outcome.figures["held_out_error"]["round to nearest"]}};
  }
  if (scaled) {
    const PackedBlock before = task.packed();
    fold_all(task, all);
    task.restart();
    auto other = then_->run(task);
    if (other.error) {
      figures["held_out_error"]["scaled"] = *other.error;
    }
    if (!chosen.error || !other.error || *other.error < *chosen.error) {
      chosen = std::move(other);
      kept = "scaled";
    } else {
      task.unfold();
      for (const auto& [path, packed] : before) {
        task.set(path, packed);
      }
    }
  }
  figures["kept"] = kept;
  figures["awq"] = outcome.figures;
  figures[then_->name()] = chosen.figures;
  outcome.figures = std::move(figures);
  outcome.error = chosen.error;
  outcome.warnings.insert(
      outcome.warnings.end(), chosen.warnings.begin(), chosen.warnings.end());
}

StageNeeds AwqStage::needs() const {
  return {
      .quantized_inputs = !options_.full_inputs,
      .held_out = true,
      .restarts = true};
}

int64_t AwqStage::working_bytes(const BlockSpec& block) const {
  // Gram matrices of all inputs, as arrays and vectors; variants' weights.
  std::map<std::string, int64_t> squares;
  int64_t weights = 0;
  for (const ModuleSpec& module : list_modules(block)) {
    squares[module.input_id] = 4 * module.in * module.in;
    weights += module.in * module.out;
  }
  int64_t bytes = 16 * weights;
  for (const auto& [input, square] : squares) {
    bytes += 2 * square;
  }
  return std::max(bytes, then_ ? then_->working_bytes(block) : 0);
}

BlockOutcome AwqStage::run(BlockTask& task) {
  BlockOutcome outcome;
  std::vector<AwqInputs> all;
  for (const LinearGroup& group : task.groups()) {
    all.push_back(take_inputs(task, group));
  }
  bool scaled = false;
  for (AwqInputs& inputs : all) {
    if (options_.scale && inputs.scaling) {
      const auto& path = inputs.group.modules.front().path;
      outcome.figures["scales"][path] = search_scales(task, options_, inputs);
      scaled = scaled || !inputs.scales.empty();
    }
  }
  auto variants = list_variants(options_, scaled);
  for (Variant& variant : variants) {
    round_block(task, all, options_, variant);
  }
  const size_t kept = choose(task, variants);
  Json& errors =
      outcome.figures[task.has_held_out() ? "held_out_error" : "loss"];
  for (const Variant& variant : variants) {
    errors[variant.name] = *variant.error;
  }
  outcome.figures["kept"] = variants[kept].name;
  if (kept != 0 && task.has_held_out()) {
    outcome.warnings.push_back(
        task.spec().path + ": " + variants[kept].name +
        " has the lower held-out error (" + percent(*variants[kept].error) +
        " against " + percent(*variants[0].error) + ") and was kept");
  }
  if (then_) {
    run_then(task, all, variants[kept].scaled, outcome);
    return outcome;
  }
  if (variants[kept].scaled) {
    fold_all(task, all);
  }
  outcome.error = variants[kept].error;
  for (const auto& [path, packed] : variants[kept].packed) {
    task.set(path, packed);
  }
  return outcome;
}

}  // namespace pennyweight
