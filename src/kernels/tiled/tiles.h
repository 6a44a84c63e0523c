#pragma once

#include "kernels/backward.h"
#include "kernels/kernels.h"
#include "kernels/simd/simd.h"

/// Kernels that are made of matrix products, for whichever implementation
/// brings the product.
namespace pennyweight::kernels {

inline int64_t divide_up(int64_t x, int64_t by) {
  return (x + by - 1) / by;
}

inline int64_t round_up(int64_t x, int64_t step) {
  return divide_up(x, step) * step;
}

/// `count` rows or columns from `first` on, or what there is of them.
struct Stretch {
  int64_t first = 0;
  int64_t count = 0;
};

/// The part of a product that makes these rows and columns of its result.
MatmulArgs
block_of(const MatmulArgs& args, const Stretch& rows, const Stretch& columns);

/// Rows and columns of the result that one task makes.
struct ProductTiles {
  int64_t rows = 0;
  int64_t columns = 0;
};

/// Tiles of a product [m, k] by [k, n], by its shape alone: large enough that
/// a task's products reach their rate, and where it allows some for each of
/// many threads.
ProductTiles product_tiles(int64_t m, int64_t n, int64_t k);

using ProductFn = void (*)(const MatmulArgs&);
using TransposeFn = void (*)(const TransposeArgs&);

/// A packed weight is expanded to `panel_type`, a few megabytes at a time.
void quantized_matmul_by_panels(
    const QuantizedMatmulArgs& args,
    ProductFn product,
    DType panel_type);

/// Both sides are transposed a thousand rows at a time.
void gram_by_products(
    const GramArgs& args,
    ProductFn product,
    TransposeFn turn);

/// Whether a part is b itself, and only its upper half is computed.
bool is_square(const GramArgs& args, const GramArgs::Part& part);
/// Copies the upper halves of such parts to the lower.
void complete_squares(const GramArgs& args);

/// Keys `from` .. `from + count - 1` of one batch row and kv head. Both are
/// multiples of kKeyStep; what lies beyond the last key counts as zeros.
struct KeyBlock {
  int64_t batch = 0;
  int64_t kv_head = 0;
  int64_t from = 0;
  int64_t count = 0;
};
inline constexpr int64_t kKeyStep = 64;

/// The keys that `queries` queries see, the first of which stands at key `at`;
/// begin is a multiple of kKeyStep, end may not be above it.
struct KeyRange {
  int64_t begin;
  int64_t end;
};
KeyRange keys_seen(const AttentionArgs& args, int64_t at, int64_t queries);

/// Max and sum of a tile's rows before any key: a sink is a key that was seen
/// already, and that adds no value.
void start_softmax(
    const AttentionArgs& args,
    int64_t kv_head,
    int64_t rows,
    float* max,
    float* sum);

/// The mask of a tile whose first query stands at column `here` of its keys.
simd::WeightsArgs seen_weights(const AttentionArgs& args, int64_t here);

/// The two products of attention. Called by several threads at once.
class AttentionProducts {
 public:
  virtual ~AttentionProducts() = default;
  /// out [rows, count] = q [rows, head_dim] * k^T.
  virtual void scores(
      const KeyBlock& block,
      int64_t rows,
      const ConstMatrix& q,
      const Matrix& out) const = 0;
  /// sums [rows, head_dim] = weights [rows, count] * v, or += with `add`.
  virtual void mix(
      const KeyBlock& block,
      int64_t rows,
      const ConstMatrix& weights,
      float* sums,
      bool add) const = 0;
};

/// Tiles of queries against blocks of keys, weights as running softmax sums
/// (arXiv 2205.14135); a tile's scores stay in the second-level cache. Tiles
/// of queries and weights are of `tile_type`, float32 or bfloat16.
void attention_by_tiles(
    const AttentionArgs& args,
    const AttentionProducts& products,
    DType tile_type);

/// The same with k and v as they lie.
void attention_by_tiles(
    const AttentionArgs& args,
    ProductFn product,
    DType tile_type);

/// attention_backward by tiles of queries, each against all keys that it sees;
/// products run in `tile_type`.
void attention_backward_by_tiles(
    const AttentionBackwardArgs& args,
    ProductFn product,
    DType tile_type);

}  // namespace pennyweight::kernels
