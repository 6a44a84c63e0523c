#include "model/claims.h"

#include <algorithm>

#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

namespace {

// As mlx-lm: what the config says of this module by name, else what the
// shapes say (the config's common entry may not hold for every module).
QuantSpec stored_spec(
    const ModelTensors& tensors,
    const Json& common,
    const ModuleSpec& module) {
  if (auto it = common.find(module.path);
      it != common.end() && it->is_object()) {
    std::string origin = "config.json: quantization of " + module.path;
    return quant_spec_from_json(JsonView(*it, origin));
  }
  const auto& weight = tensors.info(module.path + ".weight");
  const auto& scales = tensors.info(module.path + ".scales");
  int64_t words = weight.shape.empty() ? 0 : weight.shape.back();
  int64_t groups = scales.shape.empty() ? 0 : scales.shape.back();
  int group = groups > 0 ? static_cast<int>(module.in / groups) : 0;
  int bits = static_cast<int>(words * 32 / module.in);
  std::string mode = "affine";
  if (scales.dtype == mx::uint8) {
    mode = group == 16 ? "nvfp4" : bits == 4 ? "mxfp4" : "mxfp8";
  }
  try {
    return make_quant_spec(mode, bits, group);
  } catch (const Error&) {
    throw corrupt_error(
        "model",
        module.path + ".weight and .scales have shapes " +
            bracketed(weight.shape) + " and " + bracketed(scales.shape) +
            ", which fit no MLX quantization of " + std::to_string(module.in) +
            " inputs");
  }
}

// [rows], or of a stack [count, rows].
std::vector<int64_t> stacked(int64_t count, std::vector<int64_t> shape) {
  if (count > 0) {
    shape.insert(shape.begin(), count);
  }
  return shape;
}

}  // namespace

bool is_stored_float(mx::Dtype dtype) {
  return dtype == mx::float32 || dtype == mx::bfloat16 || dtype == mx::float16;
}

std::optional<QuantSpec> Claims::claim_module(
    const Json& common,
    const ModuleSpec& module) {
  std::optional<QuantSpec> spec;
  if (!common.is_null() && tensors_.contains(module.path + ".scales") &&
      tensors_.contains(module.path + ".weight")) {
    spec = stored_spec(tensors_, common, module);
    claim_packed(module, *spec);
  } else {
    claim_float(
        module.path + ".weight",
        stacked(module.count, {module.out, module.in}));
  }
  if (module.bias) {
    claim_float(module.path + ".bias", stacked(module.count, {module.out}));
  }
  return spec;
}

void Claims::claim_packed(const ModuleSpec& module, const QuantSpec& spec) {
  if (!fits(spec, module.in)) {
    fail(
        "module " + module.path + " is " + std::to_string(module.in) +
        " wide, which groups of " + std::to_string(spec.group_size) +
        " do not divide");
  }
  const int64_t words = module.in * spec.bits / 32;
  const auto& weight = claim(
      module.path + ".weight", stacked(module.count, {module.out, words}));
  if (weight.dtype != mx::uint32) {
    fail("tensor " + weight.name + " must hold packed uint32");
  }
  const auto shape =
      stacked(module.count, {module.out, module.in / spec.group_size});
  if (spec.mode == "affine") {
    claim_float(module.path + ".scales", shape);
    claim_float(module.path + ".biases", shape);
    return;
  }
  const auto& scales = claim(module.path + ".scales", shape);
  if (scales.dtype != mx::uint8) {
    fail("tensor " + scales.name + " must hold uint8");
  }
}

void Claims::claim_norm(const NormSpec& norm) {
  claim_float(norm.path + ".weight", stacked(norm.heads, {norm.size}));
  if (norm.bias) {
    claim_float(norm.path + ".bias", {norm.size});
  }
}

const TensorInfo& Claims::claim(
    const std::string& name,
    const std::vector<int64_t>& shape) {
  if (!tensors_.contains(name)) {
    throw Error(
        checkpoint_.lacks_files() ? ErrorCode::not_found : ErrorCode::corrupt,
        "model",
        checkpoint_.folder().string() + ": tensor " + name + " is missing" +
            checkpoint_.about_missing(name) + about_names(name));
  }
  const auto& info = tensors_.info(name);
  if (!std::ranges::equal(info.shape, shape)) {
    fail(
        "tensor " + name + " has shape " + bracketed(info.shape) +
        ", the config asks for " + bracketed(shape));
  }
  if (!claimed_.insert(name).second) {
    fail("tensor " + name + " is claimed by two modules");
  }
  return info;
}

void Claims::claim_float(
    const std::string& name,
    const std::vector<int64_t>& shape) {
  const auto& info = claim(name, shape);
  if (!is_stored_float(info.dtype)) {
    fail("tensor " + name + " is not of a floating type");
  }
  count_[info.dtype.val()] += info.bytes;
}

// What the names that are there say of one that is not.
std::string Claims::about_names(const std::string& name) const {
  for (const auto& [other, info] : tensors_.all()) {
    if (other.find(".lora_A.") != other.npos) {
      return "; this is an adapter (" + one_line(other, 120) +
          "): merge it into its base model first";
    }
    if (other.ends_with("." + name) || name.ends_with("." + other)) {
      return "; there is " + one_line(other, 120) +
          ": save the model under the names that mlx-lm reads";
    }
  }
  return "";
}

void Claims::finish() const {
  for (const auto& [name, info] : tensors_.all()) {
    if (!claimed_.contains(name)) {
      fail(
          "tensor " + one_line(name, 120) +
          " belongs to no module of this model");
    }
  }
}

mx::Dtype Claims::main_dtype() const {
  auto most = std::ranges::max_element(
      count_, {}, [](const auto& entry) { return entry.second; });
  for (mx::Dtype dtype : {mx::float32, mx::bfloat16, mx::float16}) {
    if (most != count_.end() && dtype.val() == most->first) {
      return dtype;
    }
  }
  return mx::float32;
}

void Claims::fail(const std::string& what) const {
  throw corrupt_error("model", checkpoint_.folder().string() + ": " + what);
}

}  // namespace pennyweight
