#include "method/packed_block.h"

#include <algorithm>

#include "core/error.h"

namespace pennyweight {

std::vector<LinearGroup> list_groups(
    const BlockSpec& block,
    const QuantPlan& plan) {
  std::vector<LinearGroup> groups;
  std::string input;
  const auto steps = block_steps(block);
  for (const ModuleSpec& module : list_modules(block)) {
    if (module.input_id != input) {
      input = module.input_id;
      const auto step = std::ranges::find_if(steps, [&](const auto& inputs) {
        return std::ranges::count(inputs, module.input) > 0;
      });
      groups.push_back({static_cast<size_t>(step - steps.begin()), {}});
    }
    const auto& entry = plan.at(module.stored);
    if (entry.spec && !entry.published) {
      groups.back().modules.push_back(module);
    }
  }
  std::erase_if(
      groups, [](const auto& group) { return group.modules.empty(); });
  return groups;
}

std::map<std::string, mx::array> block_tensors(const PackedBlock& block) {
  std::map<std::string, mx::array> tensors;
  for (const auto& [path, packed] : block) {
    tensors.emplace(path + ".weight", packed.codes);
    tensors.emplace(path + ".scales", packed.scales);
    if (packed.biases) {
      tensors.emplace(path + ".biases", *packed.biases);
    }
  }
  return tensors;
}

FinishedBlock finished_block(
    const std::map<std::string, mx::array>& tensors,
    const BlockSpec& spec,
    const QuantPlan& plan) {
  FinishedBlock block;
  block.floats = tensors;
  for (const auto& group : list_groups(spec, plan)) {
    for (const ModuleSpec& module : group.modules) {
      const QuantSpec& quant = *plan.at(module.stored).spec;
      auto find = [&](const char* part) {
        auto it = tensors.find(module.path + part);
        if (it == tensors.end()) {
          throw corrupt_error(
              "walk",
              "the finished block has no " + module.path + part +
                  "; start anew with --force");
        }
        block.floats.erase(it->first);
        return it->second;
      };
      ops::QuantizedWeight packed{
          find(".weight"),
          find(".scales"),
          std::nullopt,
          quant.group_size,
          quant.bits,
          quant.mode};
      if (quant.mode == "affine") {
        packed.biases = find(".biases");
      }
      block.packed.emplace(module.path, std::move(packed));
    }
  }
  return block;
}

void put_in_place(
    const FinishedBlock& block,
    mx::Dtype dtype,
    BlockWeights& weights) {
  for (const auto& [path, packed] : block.packed) {
    weights.linears.at(path).dense = ops::dequantize(packed, dtype);
  }
  for (const auto& [name, tensor] : block.floats) {
    const auto module = module_of(name);
    if (auto norm = weights.norms.find(module); norm != weights.norms.end()) {
      norm->second = tensor;
    } else if (name.ends_with(".bias")) {
      weights.linears.at(module).bias = tensor;
    } else {
      weights.linears.at(module).dense = tensor;
    }
  }
}

}  // namespace pennyweight
