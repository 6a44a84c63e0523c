#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include <algorithm>
#include <cstring>

#include "kernels/access.h"
#include "kernels/onednn/onednn.h"
#include "kernels/onednn/pack_pairs.h"
#include "kernels/onednn/product.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels::onednn {

namespace {

// Fewer queries than these do not pay for packing keys and values.
constexpr int64_t kFewestQueries = 16;

/// Packs keys and values of each batch row and kv head once for all tiles;
/// oneDNN would pack them again for each.
class PackedProducts : public AttentionProducts {
 public:
  PackedProducts(const AttentionArgs& args, Scratch& keys, Scratch& values)
      : args_(args),
        padded_keys_(round_up(args.keys, kKeyStep)),
        key_size_(padded_keys_ * round_up(args.head_dim, kPackedDepth)),
        value_size_(padded_keys_ * padded_width(args.head_dim)) {
    const int64_t pairs = args.batch * args.kv_heads;
    keys_ = keys.get<BFloat16>(pairs * key_size_);
    values_ = values.get<BFloat16>(pairs * value_size_);
    const int64_t blocks = padded_keys_ / kKeyStep;
    parallel_tasks(pairs * blocks, [&](int64_t task) {
      pack_keys(task / blocks, task % blocks * kKeyStep);
      pack_values(task / blocks, task % blocks * kKeyStep);
    });
  }

  static bool works(const AttentionArgs& args) {
    const int64_t rest = args.head_dim % kPackedColumns;
    return args.type == DType::bf16 && args.length >= kFewestQueries &&
        has_bfloat16() && packed_product_works(kKeyStep, args.head_dim) &&
        packed_product_works(
               std::min(args.head_dim, kPackedColumns), kKeyStep) &&
        (rest == 0 || packed_product_works(rest, kKeyStep));
  }

  void scores(
      const KeyBlock& block,
      int64_t rows,
      const ConstMatrix& q,
      const Matrix& out) const override {
    const int64_t depth = round_up(args_.head_dim, kPackedDepth);
    const BFloat16* k = keys_ + pair_of(block) * key_size_ + block.from * depth;
    packed_product(
        {rows,
         block.count,
         args_.head_dim,
         q,
         {k, DType::bf16, 0},
         {},
         {},
         out,
         false});
  }

  void mix(
      const KeyBlock& block,
      int64_t rows,
      const ConstMatrix& weights,
      float* sums,
      bool add) const override {
    const BFloat16* v = values_ + pair_of(block) * value_size_;
    const int64_t d = args_.head_dim;
    for (int64_t column = 0; column < d; column += kPackedColumns) {
      const int64_t n = std::min(kPackedColumns, d - column);
      const int64_t width = packed_columns(n);
      const ConstMatrix part{v + block.from * width, DType::bf16, 0};
      const Matrix out{sums + column, DType::f32, d};
      const ConstMatrix so_far{add ? out.data : nullptr, DType::f32, d};
      packed_product(
          {rows, n, block.count, weights, part, {}, so_far, out, false});
      v += padded_keys_ * width;
    }
  }

 private:
  static int64_t padded_width(int64_t head_dim) {
    const int64_t rest = head_dim % kPackedColumns;
    return head_dim - rest + (rest == 0 ? 0 : packed_columns(rest));
  }

  int64_t pair_of(const KeyBlock& block) const {
    return block.batch * args_.kv_heads + block.kv_head;
  }

  const BFloat16* row_of(const HeadsView& x, int64_t pair, int64_t key) const {
    return static_cast<const BFloat16*>(element_at(
        x, args_.type, pair / args_.kv_heads, key, pair % args_.kv_heads));
  }

  /// Of the scores' product keys are the columns, kKeyStep to a block, and the
  /// head's values the depth.
  void pack_keys(int64_t pair, int64_t from) {
    static_assert(kKeyStep == kPackedColumns);
    const int64_t d = args_.head_dim;
    const int64_t depth = round_up(d, kPackedDepth);
    BFloat16* to = keys_ + pair * key_size_ + from * depth;
    const int64_t present = std::min(kKeyStep, args_.keys - from);
    if (present < kKeyStep || depth != d) {
      std::memset(to, 0, size_t(kKeyStep * depth) * sizeof(BFloat16));
    }
    for (int64_t j = 0; j < present; ++j) {
      const BFloat16* k = row_of(args_.k, pair, from + j);
      BFloat16* column = to + 2 * j;
      int64_t i = 0;
      for (; i + 2 <= d; i += 2, column += 2 * kPackedColumns) {
        std::memcpy(column, k + i, 2 * sizeof(BFloat16));
      }
      if (i < d) {
        column[0] = k[i];
      }
    }
  }

  /// Of the mix keys are the depth and the head's values the columns.
  void pack_values(int64_t pair, int64_t from) {
    const int64_t d = args_.head_dim;
    BFloat16* part = values_ + pair * value_size_;
    for (int64_t column = 0; column < d; column += kPackedColumns) {
      const int64_t n = std::min(kPackedColumns, d - column);
      const int64_t width = packed_columns(n);
      BFloat16* to = part + from * width;
      for (int64_t j = 0; j < kKeyStep; j += 2, to += 2 * width) {
        const int64_t key = from + j;
        interleave(
            values_at(pair, key, column),
            values_at(pair, key + 1, column),
            n,
            width,
            to);
      }
      part += padded_keys_ * width;
    }
  }

  /// A value's part from `column` on; null behind the last key.
  const BFloat16* values_at(int64_t pair, int64_t key, int64_t column) const {
    return key < args_.keys ? row_of(args_.v, pair, key) + column : nullptr;
  }

  const AttentionArgs& args_;
  int64_t padded_keys_;
  int64_t key_size_;
  int64_t value_size_;
  BFloat16* keys_ = nullptr;
  BFloat16* values_ = nullptr;
};

}  // namespace

void attention(const AttentionArgs& args) {
  if (PackedProducts::works(args)) {
    thread_local Scratch keys, values;
    return attention_by_tiles(
        args, PackedProducts(args, keys, values), DType::bf16);
  }
  const bool bf16 = args.type == DType::bf16 && has_bfloat16();
  attention_by_tiles(args, onednn::matmul, bf16 ? DType::bf16 : DType::f32);
}

void attention_f32(const AttentionArgs& args) {
  attention_by_tiles(args, onednn::matmul_f32, DType::f32);
}

void attention_backward_f32(const AttentionBackwardArgs& args) {
  attention_backward_by_tiles(args, onednn::matmul_f32, DType::f32);
}

void attention_backward(const AttentionBackwardArgs& args) {
  const bool bf16 = args.forward.type == DType::bf16 && has_bfloat16();
  attention_backward_by_tiles(
      args, onednn::matmul, bf16 ? DType::bf16 : DType::f32);
}

}  // namespace pennyweight::kernels::onednn

#endif
