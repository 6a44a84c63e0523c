#pragma once

#include "kernels/backward.h"
#include "kernels/kernels.h"
#include "kernels/simd/simd.h"

/// Kernels that are made of matrix products. Whoever calls them brings the
/// product.
namespace pennyweight::kernels {

inline int64_t divide_up(int64_t x, int64_t by) {
  return (x + by - 1) / by;
}

inline int64_t round_up(int64_t x, int64_t step) {
  return divide_up(x, step) * step;
}

/// `count` rows or columns from `first` on, or fewer at the end.
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

/// The tiles of a product [m, k] by [k, n], which depend on its shape alone:
/// large enough for a task's product to be fast, and, where the shape allows
/// that, several for each of many threads.
ProductTiles product_tiles(int64_t m, int64_t n, int64_t k);

using ProductFn = void (*)(const MatmulArgs&);
using TransposeFn = void (*)(const TransposeArgs&);

/// quantized_matmul by products with panels of the weight, which are expanded
/// to `panel_type`, a few megabytes at a time.
void quantized_matmul_by_panels(
    const QuantizedMatmulArgs& args,
    ProductFn product,
    DType panel_type);

/// gram by products of both sides transposed, a thousand rows at a time.
void gram_by_products(
    const GramArgs& args,
    ProductFn product,
    TransposeFn turn);

/// Whether a part is b itself, and only its upper half is computed.
bool is_square(const GramArgs& args, const GramArgs::Part& part);
/// Copies the upper halves of such parts to the lower.
void complete_squares(const GramArgs& args);

/// Keys `from` .. `from + count - 1` of one batch row and kv head. `from` and
/// `count` are multiples of kKeyStep; keys and values behind the last are
/// zeros.
struct KeyBlock {
  int64_t batch = 0;
  int64_t kv_head = 0;
  int64_t from = 0;
  int64_t count = 0;
};
inline constexpr int64_t kKeyStep = 64;

/// The keys that any of `queries` queries sees, the first of which stands at
/// key `at`. `begin` is a multiple of kKeyStep; where `end` is not above it, no
/// key is seen.
struct KeyRange {
  int64_t begin;
  int64_t end;
};
KeyRange keys_seen(const AttentionArgs& args, int64_t at, int64_t queries);

/// Sets max and sum of a tile's rows to what they are before any key. A sink
/// counts as a key that has been seen and whose value is 0.
void start_softmax(
    const AttentionArgs& args,
    int64_t kv_head,
    int64_t rows,
    float* max,
    float* sum);

/// The mask of a tile whose first query stands at column `here` of its keys;
/// the other members are for the caller to set.
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

/// attention by tiles of queries against blocks of keys, with the softmax's
/// sums brought up to date block by block (arXiv 2205.14135), so that a tile's
/// scores stay in the second-level cache. Queries and weights of a tile are
/// stored in `tile_type`, float32 or bfloat16.
void attention_by_tiles(
    const AttentionArgs& args,
    const AttentionProducts& products,
    DType tile_type);

/// The same, multiplying k and v where they are.
void attention_by_tiles(
    const AttentionArgs& args,
    ProductFn product,
    DType tile_type);

/// attention_backward by tiles of queries, each against all keys that it sees.
/// The operands of its products are of `tile_type`.
void attention_backward_by_tiles(
    const AttentionBackwardArgs& args,
    ProductFn product,
    DType tile_type);

}  // namespace pennyweight::kernels
