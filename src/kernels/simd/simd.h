#pragma once

#include <string_view>

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"
#include "kernels/product_log.h"

/// Kernels in Highway, compiled for several instruction sets; the best that
/// the machine has is chosen at run time.
namespace pennyweight::kernels::simd {

void matmul(const MatmulArgs& args);
void dequantize(const DequantizeArgs& args);
void quantized_matmul(const QuantizedMatmulArgs& args);
void rms_norm(const RmsNormArgs& args);
void rope(const RopeArgs& args);
void attention(const AttentionArgs& args);
void gated_delta(const GatedDeltaArgs& args);
void causal_conv(const CausalConvArgs& args);
void swiglu(const SwigluArgs& args);
void subtract(const SubtractArgs& args);
void add_magnitudes(const AddMagnitudesArgs& args);
void transpose(const TransposeArgs& args);
void gram(const GramArgs& args);
void softmax(const SoftmaxArgs& args);
void logsumexp(const LogSumExpArgs& args);
void score_update(const ScoreArgs& args);
void rms_norm_backward(const RmsNormBackwardArgs& args);
void swiglu_backward(const SwigluBackwardArgs& args);
void attention_backward(const AttentionBackwardArgs& args);
void gated_delta_backward(const GatedDeltaBackwardArgs& args);
void kl_slopes(const KlSlopesArgs& args);
void group_gradient(const GroupGradientArgs& args);
void accumulate(const AccumulateArgs& args);

/// Whether this machine has one of the instruction sets compiled for.
bool available();
std::string_view target_name();
/// Under which products are counted.
ProductServer& server();

/// out = x, converted; both [rows, columns]. On the caller's thread.
struct ConvertArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix x{};
  Matrix out{};
};
void convert(const ConvertArgs& args);

/// The product of a few rows x, m <= kFewRows, with a packed weight, expanded
/// in registers.
inline constexpr int64_t kFewRows = 4;
void quantized_few_rows(const QuantizedMatmulArgs& args);

/// Steps of attention on a tile of queries, for whoever multiplies. Row r of
/// a tile is the query r / group and the head r % group of its kv head.

/// out [queries * group, head_dim] = scale * q.
struct PackQueriesArgs {
  int64_t queries = 0;
  int64_t group = 0;
  int64_t head_dim = 0;
  float scale = 1;
  DType type = DType::f32;
  HeadsView q{};  // the tile's first query and head
  Matrix out{};   // float32 or bfloat16
};
void pack_queries(const PackQueriesArgs& args);

/// Turns scores into weights exp(score - max) in the same memory, as float32
/// or bfloat16 rows of `stride` elements, while max and sum of each row go on
/// from earlier blocks of keys. Row r sees column j where lowest <= j - r /
/// group <= highest and j < columns; other weights, to `padded` columns, are
/// 0. Of what was summed so far, `rescale` [rows] is what remains.
struct WeightsArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t padded = 0;
  int64_t group = 1;
  int64_t lowest = 0;
  int64_t highest = 0;
  float* scores = nullptr;
  int64_t stride = 0;
  DType out_type = DType::f32;
  float* max = nullptr;
  float* sum = nullptr;
  float* rescale = nullptr;
};
void attention_weights(const WeightsArgs& args);

/// sums [rows, columns] *= factors [rows].
void scale_rows(
    float* sums,
    const float* factors,
    int64_t rows,
    int64_t columns);

/// scores [rows, columns] = cap * tanh(scores / cap).
void cap_scores(
    float* scores,
    int64_t rows,
    int64_t columns,
    int64_t stride,
    float cap);

/// out [queries, group * head_dim] = sums [queries * group, head_dim] over
/// sum; 0 where sum is 0.
struct StoreRowsArgs {
  int64_t queries = 0;
  int64_t group = 1;
  int64_t head_dim = 0;
  const float* sums = nullptr;
  const float* sum = nullptr;
  Matrix out{};
};
void store_rows(const StoreRowsArgs& args);

/// Rows of softmax's gradient: weights [rows, columns], which are
/// exp(score - max), become p = weights / sum in `p`, and `slopes`, which are
/// the gradients by p, become p (slope - sum(p slope)). p and the result ds
/// are of `type`. `weights` is overwritten.
struct SoftmaxSlopesArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float* weights = nullptr;
  float* slopes = nullptr;
  const float* sum = nullptr;  // [rows]
  DType type = DType::f32;
  Matrix p{};
  Matrix ds{};
};
void softmax_slopes(const SoftmaxSlopesArgs& args);

}  // namespace pennyweight::kernels::simd
