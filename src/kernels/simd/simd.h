#pragma once

#include <string_view>

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"
#include "kernels/product_log.h"

/// Kernels in Highway, compiled for several instruction sets, of which the best
/// that the machine has is taken at run time; and the steps that larger kernels
/// are made of.
namespace pennyweight::kernels::simd {

#define KERNEL(name, Args) void name(const Args& args);
#include "kernels/kernel_list.def"

/// Whether this machine has one of these instruction sets.
bool available();
std::string_view target_name();
/// The name under which simd's products are counted.
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

/// Steps of attention on a tile of queries beside its products. Row r of a tile
/// is query r / group of head r % group of those that share a kv head.

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

/// Turns a block of scores into weights exp(score - max) in the same memory, as
/// float32 or bfloat16 rows of `stride` elements. `max` and `sum` hold each
/// row's values over the earlier blocks of keys and are brought up to date.
/// Where the maximum rises, sums made with the old one have to be multiplied by
/// `rescale` [rows]. Row r sees column j where lowest <= j - r / group <=
/// highest and j < columns; its other weights, up to `padded` columns, are 0.
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
struct ScaleRowsArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float* sums = nullptr;
  const float* factors = nullptr;
};
void scale_rows(const ScaleRowsArgs& args);

/// scores [rows, columns] = cap * tanh(scores / cap).
struct CapScoresArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float* scores = nullptr;
  int64_t stride = 0;
  float cap = 0;
};
void cap_scores(const CapScoresArgs& args);

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

/// The backward pass of a softmax's rows. `weights` [rows, columns] hold
/// exp(score - max); p = weights / sum. `dp` are the gradients by p, and the
/// gradients by the scores are ds = p (dp - sum(p dp)). p and ds are stored in
/// `type`; `weights` is overwritten.
struct SoftmaxGradientArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float* weights = nullptr;
  const float* dp = nullptr;
  const float* sum = nullptr;  // [rows]
  DType type = DType::f32;
  Matrix p{};
  Matrix ds{};
};
void softmax_gradient(const SoftmaxGradientArgs& args);

}  // namespace pennyweight::kernels::simd
