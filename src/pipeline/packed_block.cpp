#include "pipeline/packed_block.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "core/error.h"
#include "pipeline/block_task.h"

namespace pennyweight {

mx::array finite_dense(const LinearWeights& linear, const std::string& path) {
  auto dense = mx::contiguous(*linear.dense);
  mx::eval(dense);
  try {
    require_finite(dense, path + ".weight");
  } catch (const Error& error) {
    if (dense.dtype() != mx::float16) {
      throw;
    }
    throw Error(
        ErrorCode::numeric,
        "model",
        "tensor " + one_line(path, 120) +
            ".weight holds values that are not finite in float16; if the "
            "stored ones are, have config.json name bfloat16");
  }
  return dense;
}

void require_finite(const BlockWeights& weights) {
  for (const auto& [path, linear] : weights.linears) {
    if (linear.dense) {
      finite_dense(linear, path);
    }
  }
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
      const QuantSpec& quant = *plan.at(module.home).spec;
      auto find = [&](const char* part) {
        auto it = tensors.find(module.path + part);
        if (it == tensors.end()) {
          throw Error(
              ErrorCode::corrupt,
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
