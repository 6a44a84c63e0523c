#include "method/gptq/group.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "method/pack_result.h"
#include "ops/primitive.h"
#include "ops/rounding/quantize.h"
#include "pass/floats.h"

namespace pennyweight::gptq {

namespace {

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

/// An array's values; the array is let go.
std::vector<float> take(mx::array& array) {
  auto values = to_vector(array);
  array = mx::array(0.0f);
  return values;
}

void round_to_nearest(
    const BlockTask& task,
    const ModuleSpec& module,
    GptqVariant& variant) {
  auto packed = quantize(
      mx::astype(task.weight(module.path), task.dtype()),
      task.quant_spec(module));
  mx::eval(packed.codes, packed.scales);
  if (packed.biases) {
    mx::eval(*packed.biases);
  }
  variant.weights.insert_or_assign(module.path, std::move(packed));
}

}  // namespace

GroupSums take_sums(InputStatistics sums, const GptqOptions& options) {
  GroupSums taken;
  taken.columns = sums.hessian.shape(0);
  if (sums.input_shift && options.shift > 0) {
    taken.input_shift = take(*sums.input_shift);
  }
  if (sums.output_shift && options.shift > 0) {
    taken.output_shift = take(*sums.output_shift);
  }
  taken.hessian = take(sums.hessian);
  return taken;
}

InputStatistics settled(InputStatistics sums) {
  std::vector<mx::array*> all{&sums.hessian};
  for (auto* shift : {&sums.input_shift, &sums.output_shift}) {
    if (*shift) {
      all.push_back(&**shift);
    }
  }
  for (mx::array* array : all) {
    *array = mx::contiguous(*array);
    mx::eval(*array);
  }
  return sums;
}

GroupSums copy_sums(const InputStatistics& sums, const GptqOptions& options) {
  const auto copy = [](const mx::array& x) {
    return std::vector<float>(x.data<float>(), x.data<float>() + x.size());
  };
  GroupSums copied;
  copied.columns = sums.hessian.shape(0);
  copied.hessian = copy(sums.hessian);
  if (sums.input_shift && options.shift > 0) {
    copied.input_shift = copy(*sums.input_shift);
  }
  if (sums.output_shift && options.shift > 0) {
    copied.output_shift = copy(*sums.output_shift);
  }
  return copied;
}

GroupInputs factor_inputs(
    GroupSums sums,
    const GptqOptions& options,
    const std::string& path) {
  try {
    return {
        GptqHessian(std::move(sums.hessian), sums.columns, options),
        std::move(sums.input_shift),
        std::move(sums.output_shift)};
  } catch (const Error& error) {
    throw about("gptq", path, error);
  }
}

Damping damping_of(const GptqHessian& hessian) {
  return {hessian.damp(), hessian.dead_inputs()};
}

void note_inputs(
    const std::string& path,
    const Damping& damping,
    const GptqOptions& options,
    BlockFigures& figures) {
  Json& json = figures.details["inputs"][path];
  json["damp"] = damping.damp;
  json["dead_inputs"] = damping.dead_inputs;
  if (damping.damp > options.damp * 1.5) {
    figures.warnings.push_back(
        path + ": the Hessian was not positive definite; damping raised " +
        formatted("from %g to %g", options.damp, damping.damp));
  }
}

void quantize_module(
    const BlockTask& task,
    const ModuleSpec& module,
    const float* dense,
    const GroupInputs& inputs,
    const std::vector<GptqVariant>& variants,
    const RunWork& run,
    const KeepResult& keep) {
  const auto early = std::find_if(
      variants.begin(), variants.end(), [](auto& v) { return v.early; });
  GptqResult rounded;
  for (size_t i = 0; i < variants.size(); ++i) {
    const GptqVariant& variant = variants[i];
    if (variant.nearest || variant.early) {
      continue;
    }
    GptqResult result;
    try {
      run([&] {
        result = gptq_quantize(
            dense,
            module.out,
            inputs.hessian,
            task.quant_spec(module),
            ops::kernel_type(task.dtype()),
            variant.options,
            variant.options.shift > 0 ? inputs.shift() : GptqShift{},
            i == 0 && early != variants.end() ? &rounded : nullptr);
      });
    } catch (const Error& error) {
      throw about("gptq", module.path, error);
    }
    keep(i, std::move(result));
  }
  if (early != variants.end()) {
    keep(size_t(early - variants.begin()), std::move(rounded));
  }
}

void keep_result(
    const BlockTask& task,
    const ModuleSpec& module,
    const GptqResult& result,
    GptqVariant& variant) {
  variant.weights.insert_or_assign(
      module.path, pack_result(result, task.quant_spec(module), task.dtype()));
  variant.figures[module.path] =
      to_json(result.figures, module.out * module.in);
}

void finish_module(
    BlockTask& task,
    const ModuleSpec& module,
    std::vector<GptqVariant>& variants) {
  for (GptqVariant& variant : variants) {
    if (variant.nearest) {
      round_to_nearest(task, module, variant);
    }
  }
  task.set(module.path, variants.front().weights.at(module.path));
}

}  // namespace pennyweight::gptq
