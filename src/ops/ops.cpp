#include "ops/ops.h"

#include <mlx/ops.h>

#include <limits>

#include "kernels/score_state.h"
#include "ops/check.h"
#include "ops/mlx_path.h"

namespace pennyweight::ops {

static_assert(kernels::kScoreColumns <= kScoreState);

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    std::optional<mx::Dtype> out_dtype) {
  check_linear(x, weight, bias);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "linear");
  return mlx_path::linear(x, weight, bias, type);
}

mx::array dequantize(const QuantizedWeight& weight, mx::Dtype dtype) {
  check_quantized(weight, "dequantize");
  require_floating(dtype, "dequantize");
  return mlx_path::dequantize(weight, dtype);
}

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    std::optional<mx::Dtype> out_dtype) {
  check_quantized_linear(x, weight, bias);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "quantized_linear");
  return mlx_path::quantized_linear(x, weight, bias, type);
}

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    std::optional<mx::Dtype> out_dtype) {
  check_rms_norm(x, weight);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "rms_norm");
  return mlx_path::rms_norm(x, weight, eps, type);
}

mx::array rope(const mx::array& x, const RopeTable& table, int offset) {
  check_rope(x, table, offset);
  return mlx_path::rope(x, table, offset);
}

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  check_attention(q, k, v, options);
  return mlx_path::attention(q, k, v, options);
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  check_swiglu(gate, up);
  return mlx_path::swiglu(gate, up);
}

mx::array softmax(const mx::array& x) {
  check_rows(x, "softmax");
  return mlx_path::softmax(x);
}

mx::array logsumexp(const mx::array& x) {
  check_rows(x, "logsumexp");
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
  return mlx_path::score_update(state, logits, reference, targets, first);
}

Scores score_finish(const mx::array& state) {
  check_score_state(state);
  return mlx_path::score_finish(state);
}

}  // namespace pennyweight::ops
