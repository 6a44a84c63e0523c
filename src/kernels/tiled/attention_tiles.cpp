#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kKeyBlock = 512;  // keys against which a tile is scored
constexpr int64_t kTileRows = 192;  // rows that a tile should have

struct Buffers {
  Scratch q, scores, sums, max, sum, rescale;
};

/// Some queries of one batch row and kv head, against all keys that they see.
class Tile {
 public:
  Tile(
      const AttentionArgs& args,
      const AttentionProducts& products,
      DType type,
      int64_t tile_queries,
      Buffers& buffers)
      : args_(args),
        products_(products),
        type_(type),
        group_(args.heads / args.kv_heads),
        tile_queries_(tile_queries),
        rows_(tile_queries * group_),
        buffers_(buffers) {}

  void run(int64_t batch, int64_t kv_head, int64_t first) {
    const int64_t queries = std::min(tile_queries_, args_.length - first);
    start(batch, kv_head, first, queries);
    // The key at which the tile's first query stands.
    const int64_t at = args_.keys - args_.length + first;
    const auto [begin, end] = keys_seen(args_, at, queries);
    for (int64_t from = begin; from < end; from += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, end - from);
      const KeyBlock block{batch, kv_head, from, round_up(keys, kKeyStep)};
      add_block(block, keys, at, from == begin);
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
  void start(int64_t batch, int64_t kv_head, int64_t first, int64_t queries) {
    const int64_t d = args_.head_dim;
    q_ = {buffers_.q.get<float>(rows_ * d), type_, d};
    sums_ = buffers_.sums.get<float>(rows_ * d);
    max_ = buffers_.max.get<float>(rows_);
    sum_ = buffers_.sum.get<float>(rows_);
    rescale_ = buffers_.rescale.get<float>(rows_);
    start_softmax(args_, kv_head, rows_, max_, sum_);
    HeadsView q = args_.q;
    q.data = element_at(q, args_.type, batch, first, kv_head * group_);
    simd::pack_queries({queries, group_, d, args_.scale, args_.type, q, q_});
    // A tile of fewer queries is filled up with zeros to the shape of a full
    // one.
    std::memset(
        advance(q_.data, type_, queries * group_ * d),
        0,
        size_t((rows_ - queries * group_) * d) * size_of(type_));
  }

  void add_block(const KeyBlock& block, int64_t keys, int64_t at, bool fresh) {
    float* scores = buffers_.scores.get<float>(rows_ * kKeyBlock);
    products_.scores(
        block,
        rows_,
        {q_.data, q_.type, q_.stride},
        {scores, DType::f32, block.count});
    if (args_.cap > 0) {
      simd::cap_scores({rows_, keys, scores, block.count, args_.cap});
    }
    auto weights = seen_weights(args_, at - block.from);
    weights.rows = rows_;
    weights.columns = keys;
    weights.padded = weights.stride = block.count;
    weights.scores = scores;
    weights.out_type = type_;
    weights.max = max_;
    weights.sum = sum_;
    weights.rescale = rescale_;
    simd::attention_weights(weights);
    if (!fresh) {
      simd::scale_rows({rows_, args_.head_dim, sums_, rescale_});
    }
    products_.mix(block, rows_, {scores, type_, block.count}, sums_, !fresh);
  }

  const AttentionArgs& args_;
  const AttentionProducts& products_;
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

/// Products with k and v where they are; a block that ends behind the last key
/// is copied and filled up.
class PlainProducts : public AttentionProducts {
 public:
  PlainProducts(const AttentionArgs& args, ProductFn product)
      : args_(args), product_(product) {}

  void scores(
      const KeyBlock& block,
      int64_t rows,
      const ConstMatrix& q,
      const Matrix& out) const override {
    thread_local Scratch copy;
    const auto k = rows_of(args_.k, block, copy);
    product_({rows, block.count, args_.head_dim, q, k, {}, {}, out, false});
  }

  void mix(
      const KeyBlock& block,
      int64_t rows,
      const ConstMatrix& weights,
      float* sums,
      bool add) const override {
    thread_local Scratch copy;
    const int64_t d = args_.head_dim;
    const auto v = rows_of(args_.v, block, copy);
    const ConstMatrix so_far{add ? sums : nullptr, DType::f32, d};
    const Matrix out{sums, DType::f32, d};
    product_({rows, d, block.count, weights, v, {}, so_far, out, true});
  }

 private:
  ConstMatrix rows_of(const HeadsView& x, const KeyBlock& block, Scratch& copy)
      const {
    const DType type = args_.type;
    const void* rows =
        element_at(x, type, block.batch, block.from, block.kv_head);
    if (block.from + block.count <= args_.keys) {
      return {rows, type, x.row_stride};
    }
    const int64_t d = args_.head_dim;
    const size_t row_bytes = size_t(d) * size_of(type);
    char* to = copy.get<char>(block.count * int64_t(row_bytes));
    const int64_t present = args_.keys - block.from;
    for (int64_t i = 0; i < present; ++i) {
      std::memcpy(
          to + size_t(i) * row_bytes,
          advance(rows, type, i * x.row_stride),
          row_bytes);
    }
    std::memset(
        to + size_t(present) * row_bytes,
        0,
        size_t(block.count - present) * row_bytes);
    return {to, type, d};
  }

  const AttentionArgs& args_;
  ProductFn product_;
};

}  // namespace

KeyRange keys_seen(const AttentionArgs& args, int64_t at, int64_t queries) {
  KeyRange range{0, args.keys};
  if (args.causal) {
    range.end = std::min(range.end, at + queries);
  }
  if (args.window > 0) {
    range.begin = std::max<int64_t>(0, at - args.window + 1);
    range.end = std::min(range.end, at + queries + args.window - 1);
  }
  range.begin = range.begin / kKeyStep * kKeyStep;
  return range;
}

void start_softmax(
    const AttentionArgs& args,
    int64_t kv_head,
    int64_t rows,
    float* max,
    float* sum) {
  std::fill_n(max, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sum, rows, 0.0f);
  const int64_t group = args.heads / args.kv_heads;
  for (int64_t row = 0; args.sinks && row < rows; ++row) {
    max[row] = args.sinks[kv_head * group + row % group];
    sum[row] = 1.0f;
  }
}

simd::WeightsArgs seen_weights(const AttentionArgs& args, int64_t here) {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max() / 2;
  const int64_t window = args.window > 0 ? args.window : kAll;
  return {
      .group = args.heads / args.kv_heads,
      .lowest = here - window + 1,
      .highest = args.causal ? here : here + window - 1};
}

void attention_by_tiles(
    const AttentionArgs& args,
    const AttentionProducts& products,
    DType tile_type) {
  if (args.length == 0 || args.batch == 0) {
    return;
  }
  const int64_t group = args.heads / args.kv_heads;
  const int64_t wanted = round_up(std::max<int64_t>(1, kTileRows / group), 16);
  const int64_t tile_queries = std::min(args.length, wanted);
  const int64_t tiles = (args.length + tile_queries - 1) / tile_queries;
  const int64_t pairs = args.batch * args.kv_heads;
  parallel_tasks(tiles * pairs, [&](int64_t task) {
    thread_local Buffers buffers;
    // Under a causal mask the last tiles take longest, so they go first.
    const int64_t tile = tiles - 1 - task / pairs;
    const int64_t pair = task % pairs;
    Tile(args, products, tile_type, tile_queries, buffers)
        .run(pair / args.kv_heads, pair % args.kv_heads, tile * tile_queries);
  });
}

void attention_by_tiles(
    const AttentionArgs& args,
    ProductFn product,
    DType tile_type) {
  attention_by_tiles(args, PlainProducts(args, product), tile_type);
}

}  // namespace pennyweight::kernels
