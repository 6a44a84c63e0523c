#include "model/model.h"

namespace pennyweight {

namespace {

constexpr const char* kSuffixes[] = {".weight", ".bias", ".scales", ".biases"};

int64_t stored_bytes(const Model& model, const std::string& name) {
  return static_cast<int64_t>(
      model.tensors.stored_bytes(model.checkpoint, name));
}

}  // namespace

ModuleSize module_size(const Model& model, const std::string& path) {
  ModuleSize size;
  auto packed = model.quantized.find(path);
  for (const char* suffix : kSuffixes) {
    std::string name = path + suffix;
    if (!model.tensors.contains(name)) {
      continue;
    }
    const auto& info = model.tensors.info(name);
    size.bytes += stored_bytes(model, name);
    int64_t items = static_cast<int64_t>(info.bytes) / size_of(info.dtype);
    if (packed == model.quantized.end()) {
      size.parameters += items;
    } else if (suffix == std::string(".weight")) {
      size.parameters += items * 32 / packed->second.bits;
    } else if (suffix == std::string(".bias")) {
      size.parameters += items;
    }
  }
  return size;
}

ModelSize model_size(const Model& model) {
  ModelSize total;
  auto add = [&](const std::string& path) {
    auto size = module_size(model, path);
    total.bytes += size.bytes;
    total.parameters += size.parameters;
  };
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    add(module.path);
  }
  for (const BlockSpec& block : model.spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      add(norm.path);
    }
  }
  for (const ParameterSpec& parameter : list_parameters(model.spec)) {
    const auto& info = model.tensors.info(parameter.name);
    total.bytes += stored_bytes(model, parameter.name);
    total.parameters += static_cast<int64_t>(info.bytes) / size_of(info.dtype);
  }
  for (const NormSpec& norm : list_outer_norms(model.spec)) {
    add(norm.path);
  }
  total.bits_per_weight =
      8.0 * static_cast<double>(total.bytes) / total.parameters;
  return total;
}

}  // namespace pennyweight
