#include "ops/ops.h"

#include <mlx/memory.h>
#include <mlx/ops.h>

#include <limits>

#include "kernels/score_state.h"
#include "ops/check.h"
#include "ops/cpu_path.h"
#include "ops/mlx_path.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

static_assert(kernels::kScoreColumns <= kScoreState);

void keep_freed_memory(size_t bytes) {
  if (cpu_stream()) {
    mx::set_cache_limit(bytes);
  }
}

mx::array slice_rows(const mx::array& x, int first, int count) {
  auto start = mx::Shape(x.ndim(), 0);
  auto stop = x.shape();
  start[0] = first;
  stop[0] = first + count;
  return mx::slice(x, start, stop);
}

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    std::optional<mx::Dtype> out_dtype) {
  check_linear(x, weight, bias);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "linear");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::linear(x, weight, bias, std::nullopt, type, *cpu);
  }
  return mlx_path::linear(x, weight, bias, type);
}

mx::array linear_add(
    const mx::array& residual,
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias) {
  check_linear(x, weight, bias);
  check_residual(residual, x, weight.shape(0), "linear_add");
  const auto type = residual.dtype();
  if (const auto cpu = cpu_stream()) {
    return cpu_path::linear(x, weight, bias, residual, type, *cpu);
  }
  const auto sum = mlx_path::linear(x, weight, bias, mx::float32);
  return mx::astype(mx::add(residual, sum), type);
}

mx::array gram_add(
    const mx::array& sum,
    const std::vector<mx::array>& parts,
    const mx::array& b) {
  check_gram(sum, parts, b);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::gram_add(sum, parts, b, *cpu);
  }
  const auto flat = [](const mx::array& x) {
    return mx::astype(mx::reshape(x, {-1, x.shape(-1)}), mx::float32);
  };
  std::vector<mx::array> products;
  for (const auto& a : parts) {
    products.push_back(mx::matmul(mx::transpose(flat(a)), flat(b)));
  }
  return mx::add(sum, mx::concatenate(products, 0));
}

mx::array accumulate(const mx::array& sum, const mx::array& x) {
  require(
      sum.shape() == x.shape() && sum.dtype() == mx::float32 &&
          x.dtype() == mx::float32,
      "accumulate",
      "the sum " + describe(sum) + " and x " + describe(x) +
          " must be float32 of one shape");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::accumulate(sum, x, *cpu);
  }
  return mx::add(sum, x);
}

mx::array magnitudes_add(const mx::array& sum, const mx::array& x) {
  require_floating(x, "magnitudes_add", "x");
  require(
      x.ndim() >= 1 && sum.dtype() == mx::float32 &&
          sum.shape() == mx::Shape{x.shape(-1)},
      "magnitudes_add",
      "x " + describe(x) + " and the sum " + describe(sum) + " do not fit");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::magnitudes_add(sum, x, *cpu);
  }
  const auto flat = mx::reshape(x, {-1, x.shape(-1)});
  return mx::add(sum, mx::sum(mx::abs(mx::astype(flat, mx::float32)), 0));
}

mx::array difference(const mx::array& a, const mx::array& b, mx::Dtype dtype) {
  require_floating(dtype, "difference");
  require(
      a.shape() == b.shape() && a.dtype() == mx::float32 &&
          b.dtype() == mx::float32,
      "difference",
      "a " + describe(a) + " and b " + describe(b) +
          " must be float32 of one shape");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::difference(a, b, dtype, *cpu);
  }
  return mx::astype(mx::subtract(a, b), dtype);
}

mx::array dequantize(const QuantizedWeight& weight, mx::Dtype dtype) {
  check_quantized(weight, "dequantize");
  require_floating(dtype, "dequantize");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::dequantize(weight, dtype, *cpu);
  }
  return mlx_path::dequantize(weight, dtype);
}

GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw) {
  check_quantized(weight, "group_gradients");
  check_affine(weight);
  const int64_t in = int64_t(weight.codes.shape(-1)) * 32 / weight.bits;
  require(
      dw.dtype() == mx::float32 && dw.ndim() == 2 &&
          dw.shape(0) == weight.codes.shape(0) && dw.shape(1) == in,
      "group_gradients",
      "the gradient " + describe(dw) + " is not the weight's");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::group_gradients(weight, dw, *cpu);
  }
  return mlx_path::group_gradients(weight, dw);
}

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    std::optional<mx::Dtype> out_dtype) {
  check_quantized_linear(x, weight, bias);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "quantized_linear");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::quantized_linear(
        x, weight, bias, std::nullopt, type, *cpu);
  }
  return mlx_path::quantized_linear(x, weight, bias, type);
}

mx::array quantized_linear_add(
    const mx::array& residual,
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias) {
  check_quantized_linear(x, weight, bias);
  check_residual(residual, x, weight.codes.shape(0), "quantized_linear_add");
  const auto type = residual.dtype();
  if (const auto cpu = cpu_stream()) {
    return cpu_path::quantized_linear(x, weight, bias, residual, type, *cpu);
  }
  const auto sum = mlx_path::quantized_linear(x, weight, bias, mx::float32);
  return mx::astype(mx::add(residual, sum), type);
}

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    std::optional<mx::Dtype> out_dtype) {
  check_rms_norm(x, weight);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "rms_norm");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::rms_norm(x, weight, eps, type, *cpu);
  }
  return mlx_path::rms_norm(x, weight, eps, type);
}

mx::array rope(const mx::array& x, const RopeTable& table, int offset) {
  check_rope(x, table, offset);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::rope(x, table, offset, *cpu);
  }
  return mlx_path::rope(x, table, offset);
}

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  check_attention(q, k, v, options);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::attention(q, k, v, options, *cpu);
  }
  return mlx_path::attention(q, k, v, options);
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  check_swiglu(gate, up);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::swiglu(gate, up, *cpu);
  }
  return mlx_path::swiglu(gate, up);
}

mx::array geglu(const mx::array& gate, const mx::array& up) {
  check_swiglu(gate, up);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::geglu(gate, up, *cpu);
  }
  return mlx_path::geglu(gate, up);
}

mx::array clipped_glu(const mx::array& gate, const mx::array& up) {
  check_swiglu(gate, up);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::clipped_glu(gate, up, *cpu);
  }
  return mlx_path::clipped_glu(gate, up);
}

mx::array cap_logits(const mx::array& logits, float cap) {
  if (cap == 0) {
    return logits;
  }
  const mx::array limit(cap);
  return mx::multiply(limit, mx::tanh(mx::divide(logits, limit)));
}

mx::array softmax(const mx::array& x) {
  check_rows(x, "softmax");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::softmax(x, *cpu);
  }
  return mlx_path::softmax(x);
}

mx::array logsumexp(const mx::array& x) {
  check_rows(x, "logsumexp");
  if (const auto cpu = cpu_stream()) {
    return cpu_path::logsumexp(x, *cpu);
  }
  return mlx_path::logsumexp(x);
}

mx::array score_start(int rows) {
  require(rows >= 0, "score", "the number of rows is negative");
  // Below every logit, and still finite: a tile of -inf keeps it.
  const float lowest = std::numeric_limits<float>::lowest();
  std::vector<float> row(kScoreState, 0.0f);
  row[kernels::kScoreMax] = lowest;
  row[kernels::kScoreRefMax] = lowest;
  return mx::broadcast_to(
      mx::array(row.begin(), {1, kScoreState}), {rows, kScoreState});
}

mx::array score_update(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first) {
  check_score(state, logits, reference, targets, first);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::score_update(
        state, logits, reference, targets, first, *cpu);
  }
  return mlx_path::score_update(state, logits, reference, targets, first);
}

mx::array score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first,
    float scale) {
  check_score_linear(state, head, reference, targets, first);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::score_linear(
        state, head, reference, targets, first, scale, *cpu);
  }
  const auto logits_of = [scale](const HeadRows& side) {
    return mx::multiply(mlx_path::head_logits(side), mx::array(scale));
  };
  std::optional<mx::array> beside;
  if (reference) {
    beside = logits_of(*reference);
  }
  return mlx_path::score_update(state, logits_of(head), beside, targets, first);
}

Scores score_finish(const mx::array& state) {
  check_score_state(state);
  if (const auto cpu = cpu_stream()) {
    return cpu_path::score_finish(state, *cpu);
  }
  return mlx_path::score_finish(state);
}

}  // namespace pennyweight::ops
