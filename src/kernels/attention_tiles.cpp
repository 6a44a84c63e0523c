#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiles.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kKeyBlock = 512;  // keys against which a tile is scored
constexpr int64_t kTileRows = 192;  // rows that a tile of queries aims at
// Blocks are filled up to a multiple, so that products come in few shapes.
constexpr int64_t kKeyStep = 32;

int64_t round_up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

struct Buffers {
  Scratch q, scores, sums, max, sum, rescale, k, v;
};

/// One tile: `queries` queries from `first` of one batch row and kv head.
class Tile {
 public:
  Tile(
      const AttentionArgs& args,
      ProductFn product,
      DType type,
      int64_t tile_queries,
      Buffers& buffers)
      : args_(args),
        product_(product),
        type_(type),
        group_(args.heads / args.kv_heads),
        tile_queries_(tile_queries),
        rows_(tile_queries * group_),
        buffers_(buffers) {}

  void run(int64_t batch, int64_t kv_head, int64_t first) {
    const int64_t queries = std::min(tile_queries_, args_.length - first);
    pack(batch, kv_head, first, queries);
    // The tile's first query stands at this key.
    const int64_t at = args_.keys - args_.length + first;
    int64_t begin = 0;
    int64_t end = args_.keys;
    if (args_.causal) {
      end = std::min(end, at + queries);
    }
    if (args_.window > 0) {
      begin = std::max<int64_t>(0, at - args_.window + 1);
      end = std::min(end, at + queries + args_.window - 1);
    }
    begin = begin / kKeyStep * kKeyStep;
    bool fresh = true;
    for (int64_t from = begin; from < end; from += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, end - from);
      add_block(batch, kv_head, at, from, keys, fresh);
      fresh = false;
    }
    const int64_t width = args_.heads * args_.head_dim;
    const int64_t to = (batch * args_.length + first) * width +
        kv_head * group_ * args_.head_dim;
    simd::store_rows(
        {queries,
         group_,
         args_.head_dim,
         sums_,
         sum_,
         {advance(args_.out, args_.type, to), args_.type, width}});
  }

 private:
  HeadsView
  view_at(const HeadsView& x, int64_t batch, int64_t row, int64_t head) const {
    HeadsView view = x;
    view.data = advance(
        x.data,
        args_.type,
        batch * x.batch_stride + row * x.row_stride + head * x.head_stride);
    return view;
  }

  void pack(int64_t batch, int64_t kv_head, int64_t first, int64_t queries) {
    const int64_t d = args_.head_dim;
    q_ = {buffers_.q.get<float>(rows_ * d), type_, d};
    sums_ = buffers_.sums.get<float>(rows_ * d);
    max_ = buffers_.max.get<float>(rows_);
    sum_ = buffers_.sum.get<float>(rows_);
    rescale_ = buffers_.rescale.get<float>(rows_);
    std::fill_n(max_, rows_, -std::numeric_limits<float>::infinity());
    std::fill_n(sum_, rows_, 0.0f);
    std::fill_n(sums_, rows_ * d, 0.0f);
    simd::pack_queries(
        {queries,
         group_,
         d,
         args_.scale,
         args_.type,
         view_at(args_.q, batch, first, kv_head * group_),
         q_});
    // A short tile keeps the shape of a full one.
    std::memset(
        advance(q_.data, type_, queries * group_ * d),
        0,
        size_t((rows_ - queries * group_) * d) * size_of(type_));
  }

  /// keys rows from `from`, as a matrix with rows up to `padded`: in place
  /// where they exist, else copied and filled up with zeros.
  ConstMatrix block_of(
      const HeadsView& x,
      int64_t batch,
      int64_t kv_head,
      int64_t from,
      int64_t padded,
      Scratch& copy) const {
    const auto view = view_at(x, batch, from, kv_head);
    if (from + padded <= args_.keys) {
      return {view.data, args_.type, x.row_stride};
    }
    const int64_t d = args_.head_dim;
    const size_t row_bytes = size_t(d) * size_of(args_.type);
    char* to = copy.get<char>(padded * int64_t(row_bytes));
    const int64_t present = args_.keys - from;
    for (int64_t i = 0; i < present; ++i) {
      std::memcpy(
          to + size_t(i) * row_bytes,
          advance(view.data, args_.type, i * x.row_stride),
          row_bytes);
    }
    std::memset(
        to + size_t(present) * row_bytes,
        0,
        size_t(padded - present) * row_bytes);
    return {to, args_.type, d};
  }

  void add_block(
      int64_t batch,
      int64_t kv_head,
      int64_t at,
      int64_t from,
      int64_t keys,
      bool fresh) {
    const int64_t d = args_.head_dim;
    const int64_t padded = round_up(keys, kKeyStep);
    float* scores = buffers_.scores.get<float>(rows_ * kKeyBlock);
    const auto k = block_of(args_.k, batch, kv_head, from, padded, buffers_.k);
    const ConstMatrix q{q_.data, q_.type, q_.stride};
    product_(
        {rows_, padded, d, q, k, {}, {}, {scores, DType::f32, padded}, false});
    constexpr int64_t kAll = std::numeric_limits<int64_t>::max() / 2;
    const int64_t window = args_.window > 0 ? args_.window : kAll;
    simd::attention_weights(
        {.rows = rows_,
         .columns = keys,
         .padded = padded,
         .group = group_,
         .lowest = at - from - window + 1,
         .highest = args_.causal ? at - from : at - from + window - 1,
         .scores = scores,
         .stride = padded,
         .out_type = type_,
         .max = max_,
         .sum = sum_,
         .rescale = rescale_});
    if (!fresh) {
      simd::scale_rows(sums_, rescale_, rows_, d);
    }
    const auto v = block_of(args_.v, batch, kv_head, from, padded, buffers_.v);
    const int64_t stride = type_ == DType::f32 ? padded : 2 * padded;
    const ConstMatrix so_far{fresh ? nullptr : sums_, DType::f32, d};
    product_(
        {rows_,
         d,
         padded,
         {scores, type_, stride},
         v,
         {},
         so_far,
         {sums_, DType::f32, d},
         true});
  }

  const AttentionArgs& args_;
  ProductFn product_;
  DType type_;
  int64_t group_;
  int64_t tile_queries_;
  int64_t rows_;
  Buffers& buffers_;
  Matrix q_;
  float* sums_ = nullptr;
  float* max_ = nullptr;
  float* sum_ = nullptr;
  float* rescale_ = nullptr;
};

}  // namespace

void attention_by_tiles(
    const AttentionArgs& args,
    ProductFn product,
    DType tile_type) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t tile_queries = std::min(
      args.length, round_up(std::max<int64_t>(1, kTileRows / group), 16));
  if (args.length == 0 || args.batch == 0) {
    return;
  }
  const int64_t tiles = (args.length + tile_queries - 1) / tile_queries;
  const int64_t pairs = args.batch * args.kv_heads;
  parallel_tasks(tiles * pairs, [&](int64_t task) {
    thread_local Buffers buffers;
    // Under a causal mask the last tiles take longest, so they go first.
    const int64_t tile = tiles - 1 - task / pairs;
    const int64_t pair = task % pairs;
    Tile(args, product, tile_type, tile_queries, buffers)
        .run(pair / args.kv_heads, pair % args.kv_heads, tile * tile_queries);
  });
}

}  // namespace pennyweight::kernels
