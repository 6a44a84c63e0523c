#include "model/packing.h"

#include <algorithm>

#include "checkpoint/packed/packed_source.h"
#include "checkpoint/quantization_entries.h"
#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "format/quant_plan.h"

namespace pennyweight {

namespace {

// What the names of other quantizers' tensors end with, and which quantizer
// writes them.
struct ForeignSuffix {
  const char* suffix;
  const char* method;
};
constexpr ForeignSuffix kForeign[] = {
    {".qweight", "gptq or awq"},
    {".qzeros", "gptq or awq"},
    {".weight_packed", "compressed-tensors"},
    {".weight_scale_inv", "fp8"},
    {".absmax", "bitsandbytes"},
    {".quant_state.bitsandbytes__nf4", "bitsandbytes"},
    {".quant_state.bitsandbytes__fp4", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
};

bool is_packed_weight(const ModelTensors& tensors, const std::string& name) {
  return name.ends_with(".weight") && tensors.info(name).dtype == mx::uint32 &&
      tensors.contains(module_of(name) + ".scales");
}

// Advice for packed weights that are not read. (What checkpoint/packed/ reads
// is shown expanded, and does not come here.)
std::string what_to_do(const std::string& method) {
  if (method.find("bitsandbytes") != method.npos) {
    return "whose packs are not read: start from the full-precision model, or "
           "load this one in transformers, call dequantize() and save it";
  }
  return "which is not read in this form: start from the full-precision model";
}

// not_supported for weights that another quantizer packed, whatever the config
// says of them.
void refuse_foreign(
    const Checkpoint& checkpoint,
    const ModelTensors& tensors,
    const DecoderSpec& spec,
    const QuantizationEntries& entries) {
  for (const auto& [name, info] : tensors.all()) {
    if (is_unused(name, spec) || is_among(name, spec.carried)) {
      continue;
    }
    auto method = entries.method;
    bool foreign = !method.empty() && name.ends_with(".weight") &&
        !mx::issubdtype(info.dtype, mx::floating) &&
        !is_packed_weight(tensors, name);
    for (const auto& known : kForeign) {
      if (name.ends_with(known.suffix)) {
        foreign = true;
        method = method.empty() ? known.method : method;
      }
    }
    if (foreign) {
      throw not_supported_error(
          "model",
          checkpoint.folder().string() + ": quantized by \"" + method +
              "\" (tensor " + one_line(name, 120) + "), " + what_to_do(method));
    }
  }
}

// Whether what is packed was packed by the model's publisher. An output of
// mlx-lm's convert has the published experts beside an entry of MLX's own.
bool is_published(const Packing& packing, const Model& model) {
  if (model.quantized.empty() || packing.published) {
    return !model.quantized.empty();
  }
  const auto& packed_as = model.spec.experts_published_as;
  const auto is_so = [&](const ModuleSpec& module) {
    const auto it = model.quantized.find(module.path);
    return module.expert
        ? it != model.quantized.end() && it->second == *packed_as
        : it == model.quantized.end();
  };
  return packed_as &&
      std::ranges::all_of(list_stored_modules(model.spec), is_so);
}

}  // namespace

Model or_unread_packs(
    const Checkpoint& checkpoint,
    const std::function<Model()>& read) {
  const auto packs = checkpoint.unread_packs();
  const auto folder = checkpoint.folder().string();
  const bool whole = !checkpoint.lacks_files();
  try {
    return read();
  } catch (const Error& error) {
    const std::string what = error.what();
    const bool of_the_folder = error.code() == ErrorCode::corrupt ||
        error.code() == ErrorCode::not_found ||
        error.code() == ErrorCode::not_supported;
    if (packs.empty() || !whole || !of_the_folder ||
        what.find("quantized by") != what.npos) {
      throw;
    }
    throw not_supported_error(
        "model", folder + ": " + packs + ", " + what_to_do(packs));
  }
}

void settle_published(const Packing& packing, Model& model) {
  model.published_packed = is_published(packing, model);
  if (!model.published_packed) {
    return;
  }
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    const auto it = model.quantized.find(module.path);
    if (it != model.quantized.end()) {
      auto& published = module.block < 0
          ? model.spec.published
          : model.spec.blocks[static_cast<size_t>(module.block)].published;
      published.emplace(module.path, it->second);
    }
  }
}

Packing read_packing(
    const Checkpoint& checkpoint,
    const ModelTensors& tensors,
    DecoderSpec& spec) {
  const auto entries =
      read_quantization_entries(checkpoint.config(), checkpoint.folder());
  refuse_foreign(checkpoint, tensors, spec, entries);
  const bool packed = std::ranges::any_of(tensors.all(), [&](const auto& all) {
    return is_packed_weight(tensors, all.first);
  });
  if (const auto* source = checkpoint.packed()) {
    spec.notes.push_back(source->describe());
    if (!packed) {
      return {};
    }
  }
  const auto found = joined(entries.found);
  if (!packed) {
    if (!found.empty()) {
      spec.notes.push_back(
          "the config speaks of quantized weights (" + found +
          "), but all are plain floats: that is ignored, and no output keeps "
          "it");
    }
    return {};
  }
  if (!entries.mlx.is_null()) {
    auto common = entries.mlx;
    if (const auto* source = checkpoint.packed()) {
      for (const auto& [name, tensor] : source->tensors()) {
        common.erase(module_of(name));
      }
    }
    return {std::move(common)};
  }
  if (entries.method == "mxfp4") {
    return {to_json(make_quant_spec(entries.method, {}, {})), true};
  }
  spec.notes.push_back(
      "the weights are packed by MLX, but config.json has no such entry" +
      (found.empty() ? "" : " (it has " + found + ")") +
      ": bits and groups are read from their shapes; stock mlx-lm can't load "
      "this folder without the entry");
  return {Json::object(), false, true};
}

Json packed_entry(const std::map<std::string, QuantSpec>& quantized) {
  std::vector<std::pair<QuantSpec, int64_t>> counts;
  for (const auto& [path, spec] : quantized) {
    auto it = std::ranges::find(
        counts, spec, [](const auto& count) { return count.first; });
    if (it == counts.end()) {
      counts.emplace_back(spec, 1);
    } else {
      ++it->second;
    }
  }
  const auto most = std::ranges::max_element(
      counts, {}, [](const auto& count) { return count.second; });
  QuantPlan plan{most->first, {}};
  for (const auto& [path, spec] : quantized) {
    plan.modules[path].spec = spec;
  }
  return to_json(plan);
}

}  // namespace pennyweight
