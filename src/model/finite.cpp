#include "model/finite.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "core/error.h"
#include "ops/evaluated.h"
#include "ops/rounding/packed_rows.h"
#include "ops/rounding/quantize.h"

namespace pennyweight {

namespace {

void require(const mx::array& tensor, const std::string& name) {
  auto whole = evaluated(mx::contiguous(tensor));
  require_finite(whole, name);
}

// Modes other than affine have bytes for scales, of which one code is NaN:
// 0xff in e8m0, and 0x7f of either sign in nvfp4's e4m3.
void require_scale_bytes(
    const ops::QuantizedWeight& weight,
    const std::string& name) {
  if (weight.scales.dtype() != mx::uint8) {
    return;
  }
  const bool signs = weight.mode == "nvfp4";
  const auto magnitude = signs
      ? mx::bitwise_and(weight.scales, mx::array(uint8_t{0x7f}))
      : weight.scales;
  auto odd =
      mx::sum(mx::equal(magnitude, mx::array(uint8_t(signs ? 0x7f : 0xff))));
  if (const int count = odd.item<int>(); count > 0) {
    throw numeric_error(
        "model",
        "tensor " + one_line(name, 120) + " holds " + std::to_string(count) +
            " scales that are not finite: the checkpoint is damaged");
  }
}

void require(const LinearWeights& linear, const std::string& path) {
  if (linear.dense) {
    finite_dense(linear, path);
  }
  if (linear.packed) {
    require_scale_bytes(*linear.packed, path + ".scales");
    require(linear.packed->scales, path + ".scales");
    if (linear.packed->biases) {
      require(*linear.packed->biases, path + ".biases");
    }
  }
}

}  // namespace

mx::array finite_dense(const LinearWeights& linear, const std::string& path) {
  auto dense = evaluated(mx::contiguous(*linear.dense));
  try {
    require_finite(dense, path + ".weight");
  } catch (const Error&) {
    if (dense.dtype() != mx::float16) {
      throw;
    }
    throw numeric_error(
        "model",
        "tensor " + one_line(path, 120) +
            ".weight holds values that are not finite in float16; if the "
            "stored ones are, have config.json name bfloat16");
  }
  return dense;
}

void require_finite_vectors(const Model& model) {
  const auto require_named = [&](const std::string& name) {
    if (model.tensors.contains(name)) {
      require(model.load(name), name);
    }
  };
  const auto require_norm = [&](const NormSpec& norm) {
    require_named(norm.path + ".weight");
    require_named(norm.path + ".bias");
  };
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    require_named(module.path + ".bias");
  }
  for (const BlockSpec& block : model.spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      require_norm(norm);
    }
  }
  for (const ParameterSpec& parameter : list_parameters(model.spec)) {
    require_named(parameter.name);
  }
  for (const NormSpec& norm : list_outer_norms(model.spec)) {
    require_norm(norm);
  }
}

void require_finite(const BlockWeights& weights) {
  for (const auto& [path, linear] : weights.linears) {
    require(linear, path);
  }
}

void require_finite(const Model& model, const EmbeddingAndHead& weights) {
  const auto require_table = [](const VocabTable& table) {
    each_rows(table.vocab(), [&](int first, int count) {
      require(table.rows(first, count), table.path());
    });
  };
  require_table(weights.embedding);
  if (model.spec.head) {
    require_table(weights.head);
  }
  if (weights.token) {
    require_table(weights.token->table);
    require_table(weights.token->projection);
  }
}

ops::QuantizedWeight quantize(const VocabTable& table, const QuantSpec& spec) {
  PackedRows packed(table.vocab());
  each_rows(table.vocab(), [&](int first, int count) {
    packed.put(
        first,
        quantize(
            finite_dense(table.dense_rows(first, count), table.path()), spec));
  });
  return packed.take();
}

}  // namespace pennyweight
