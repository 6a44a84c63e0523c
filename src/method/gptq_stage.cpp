#include "method/gptq_stage.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cstdio>

#include "calibration/floats.h"
#include "core/error.h"
#include "method/gate.h"
#include "method/pack_result.h"
#include "ops/primitive.h"

namespace pennyweight {

namespace {

/// One way to make the block.
struct Variant {
  std::string name;
  GptqOptions options;
  bool nearest = false;  // round to nearest instead
  bool early = false;    // the first variant's, before refit and descent
  PackedBlock weights{};
  Json figures = Json::object();
};

/// Everything, round to nearest, and without each part that is on.
std::vector<Variant>
list_variants(const GptqOptions& options, bool held_out, int block) {
  std::vector<Variant> variants{{options.plain ? "plain" : "all", options}};
  if (options.plain || !held_out) {
    return variants;
  }
  variants.push_back({"round to nearest", options, true});
  if (block % options.gate_every != 0) {
    return variants;
  }
  if (options.shift > 0) {
    variants.push_back({"without shift", options});
    variants.back().options.shift = 0;
  }
  if ((options.refit || options.descend) && options.rounds > 0) {
    variants.push_back({"without refit and descent", options});
    variants.back().early = true;
  }
  if (options.grid_search) {
    variants.push_back({"without grid search", options});
    variants.back().options.grid_search = false;
  }
  return variants;
}

Json to_json(const GptqFigures& figures, int64_t weights) {
  const auto per_weight = [&](double loss) { return loss / double(weights); };
  return {
      {"loss_nearest", per_weight(figures.loss_nearest)},
      {"loss_rounded", per_weight(figures.loss_rounded)},
      {"loss", per_weight(figures.loss)},
      {"shift", figures.shift},
      {"codes_moved", figures.codes_moved},
      {"rounds", figures.rounds}};
}

/// One group's statistics in the form that gptq_quantize takes.
struct GroupInputs {
  GptqHessian hessian;
  std::vector<float> input_shift, output_shift;

  GptqShift shift() const {
    GptqShift shift;
    shift.input = input_shift.empty() ? nullptr : input_shift.data();
    shift.output = output_shift.empty() ? nullptr : output_shift.data();
    return shift;
  }
};

/// An array's values; the array is let go.
std::vector<float> take(mx::array& array) {
  auto values = to_vector(array);
  array = mx::array(0.0f);
  return values;
}

/// Statistics of wide inputs are the most that a block holds: each is let go
/// once it is copied.
GroupInputs take_inputs(
    InputStatistics sums,
    const GptqOptions& options,
    const std::string& path) {
  try {
    const int columns = sums.hessian.shape(0);
    std::vector<float> input_shift, output_shift;
    if (sums.input_shift && options.shift > 0) {
      input_shift = take(*sums.input_shift);
    }
    if (sums.output_shift && options.shift > 0) {
      output_shift = take(*sums.output_shift);
    }
    return {
        GptqHessian(take(sums.hessian), columns, options),
        std::move(input_shift),
        std::move(output_shift)};
  } catch (const Error& error) {
    throw about("gptq", path, error);
  }
}

void keep_result(
    const BlockTask& task,
    const ModuleSpec& module,
    const GptqResult& result,
    Variant& variant) {
  variant.weights.insert_or_assign(
      module.path, pack_result(result, task.quant_spec(module), task.dtype()));
  variant.figures[module.path] =
      to_json(result.figures, module.out * module.in);
}

void round_module(
    const BlockTask& task,
    const ModuleSpec& module,
    Variant& variant) {
  auto packed = quantize(
      mx::astype(task.weight(module.path), task.dtype()),
      task.quant_spec(module));
  mx::eval(packed.codes, packed.scales);
  if (packed.biases) {
    mx::eval(*packed.biases);
  }
  variant.weights.insert_or_assign(module.path, std::move(packed));
}

/// The module in each variant.
void quantize_module(
    const BlockTask& task,
    const ModuleSpec& module,
    const GroupInputs& inputs,
    std::vector<Variant>& variants) {
  auto dense = task.weight(module.path);
  auto early = std::find_if(
      variants.begin(), variants.end(), [](auto& v) { return v.early; });
  GptqResult rounded;
  for (Variant& variant : variants) {
    if (variant.nearest) {
      round_module(task, module, variant);
      continue;
    }
    if (variant.early) {
      continue;
    }
    const bool gives_early =
        early != variants.end() && &variant == &variants.front();
    try {
      const auto result = gptq_quantize(
          dense.data<float>(),
          module.out,
          inputs.hessian,
          task.quant_spec(module),
          ops::kernel_type(task.dtype()),
          variant.options,
          variant.options.shift > 0 ? inputs.shift() : GptqShift{},
          gives_early ? &rounded : nullptr);
      keep_result(task, module, result, variant);
    } catch (const Error& error) {
      throw about("gptq", module.path, error);
    }
  }
  if (early != variants.end()) {
    keep_result(task, module, rounded, *early);
  }
}

/// What a user should know of a group's inputs.
void note_inputs(
    const LinearGroup& group,
    const GptqHessian& hessian,
    const GptqOptions& options,
    BlockOutcome& outcome) {
  const std::string& path = group.modules.front().path;
  Json& json = outcome.figures["inputs"][path];
  json["damp"] = hessian.damp();
  json["dead_inputs"] = hessian.dead_inputs();
  if (hessian.damp() > options.damp * 1.5) {
    char text[64];
    std::snprintf(
        text,
        sizeof(text),
        "raised from %g to %g",
        options.damp,
        hessian.damp());
    outcome.warnings.push_back(
        path + ": the Hessian was not positive definite; damping " + text);
  }
}

/// Each variant's error on held-out text; the first is what was set.
std::vector<Judged> judge(BlockTask& task, const std::vector<Variant>& all) {
  std::vector<Judged> ways{{all.front().name, task.held_out_error()}};
  for (size_t i = 1; i < all.size(); ++i) {
    const Variant& variant = all[i];
    DenseBlock dense;
    for (const auto& [path, packed] : variant.weights) {
      dense.insert_or_assign(path, task.expand(packed));
    }
    ways.push_back({variant.name, task.held_out_error(dense)});
  }
  return ways;
}

}  // namespace

StageNeeds GptqStage::needs() const {
  return {.quantized_inputs = !options_.plain, .held_out = !options_.plain};
}

int64_t GptqStage::working_bytes(const BlockSpec& block) const {
  int64_t most = 0;
  for (const ModuleSpec& module : list_modules(block)) {
    // H beside its factor; with shifts the sums, let go one by one, were more.
    const int64_t squares = options_.plain ? 4 * module.in * module.in : 0;
    // Rows that are shifted, a thousand at a time, and what the shift does.
    const int64_t shifted = options_.plain ? 0 : 3 * 4 * 1024 * module.in;
    // Weight in float32 and in its own type, codes of two results, packed.
    const int64_t weights = 9 * module.in * module.out;
    most = std::max(most, squares + shifted + weights);
  }
  return most;
}

double GptqStage::roundings(const BlockSpec& block) const {
  double count = 0;
  for (const auto& variant : list_variants(options_, true, block.index)) {
    count += variant.nearest || variant.early ? 0 : 1;
  }
  return count;
}

BlockOutcome GptqStage::run(BlockTask& task) {
  auto variants =
      list_variants(options_, task.has_held_out(), task.spec().index);
  BlockOutcome outcome;
  for (const LinearGroup& group : task.groups()) {
    auto sums = task.statistics(
        group,
        {.shifts = options_.shift > 0,
         .experts_together = !options_.expert_hessians});
    auto inputs =
        take_inputs(std::move(sums), options_, group.modules.front().path);
    note_inputs(group, inputs.hessian, options_, outcome);
    for (const ModuleSpec& module : group.modules) {
      quantize_module(task, module, inputs, variants);
      task.set(module.path, variants.front().weights.at(module.path));
    }
  }
  size_t kept = 0;
  std::vector<Judged> ways;
  if (variants.size() > 1) {
    ways = judge(task, variants);
    kept = least(ways);
    outcome.error = ways[kept].error;
    outcome.figures["held_out_error"] = to_json(ways);
  }
  outcome.figures["kept"] = variants[kept].name;
  outcome.figures["modules"] = variants[kept].figures;
  if (kept != 0) {
    outcome.warnings.push_back(describe_kept(task.spec(), ways, kept));
    for (const auto& [path, weight] : variants[kept].weights) {
      task.set(path, weight);
    }
  }
  return outcome;
}

}  // namespace pennyweight
