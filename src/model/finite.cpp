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

void require(const LinearWeights& linear, const std::string& path) {
  if (linear.dense) {
    finite_dense(linear, path);
  }
  if (linear.packed) {
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
