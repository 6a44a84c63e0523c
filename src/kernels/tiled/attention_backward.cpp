#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels {

namespace {

// The rows that a tile of queries should have. A tile holds its scores against
// all keys, so that it has fewer where there are many keys.
constexpr int64_t kBackwardRows = 192;
constexpr int64_t kLongTileRows = 64;
constexpr int64_t kLongKeys = 8192;
constexpr int64_t kTilesPerThread = 4;  // that may be begun and not done

struct BackwardBuffers {
  Scratch q, dout, weights, dp, capped, p, ds, turned, dq;
  Scratch max, sum, rescale;
};

/// How many queries a tile holds, each of all heads that share keys.
int64_t queries_of_tile(const AttentionArgs& args) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t rows = args.keys > kLongKeys ? kLongTileRows : kBackwardRows;
  return std::min(args.length, std::max<int64_t>(16, rows / group / 16 * 16));
}

int64_t count_tiles(const AttentionArgs& args) {
  return divide_up(args.length, queries_of_tile(args));
}

/// Gradients of one batch row and kv head. Its tiles add to them one after the
/// other, in order, so that the sums do not depend on the number of threads.
struct PairSums {
  float* dk = nullptr;  // [keys, head_dim]
  float* dv = nullptr;
  std::atomic<int64_t> next{0};  // the tile whose turn it is

  void wait_for(int64_t tile) {
    for (auto now = next.load(); now < tile; now = next.load()) {
      next.wait(now);
    }
  }
  /// Never sets `next` back: after a failure it is beyond all tiles, so that
  /// none waits.
  void go_on(int64_t tile) {
    auto now = next.load();
    while (now < tile && !next.compare_exchange_weak(now, tile)) {
    }
    next.notify_all();
  }
};

/// Some queries of one batch row and kv head.
class BackwardTile {
 public:
  BackwardTile(
      const AttentionBackwardArgs& args,
      ProductFn product,
      DType type,
      int64_t pair,
      PairSums& sums,
      BackwardBuffers& buffers)
      : args_(args),
        forward_(args.forward),
        product_(product),
        type_(type),
        batch_(pair / forward_.kv_heads),
        kv_head_(pair % forward_.kv_heads),
        group_(forward_.heads / forward_.kv_heads),
        d_(forward_.head_dim),
        sums_(sums),
        buffers_(buffers) {}

  void run(int64_t tile, int64_t first, int64_t queries) {
    gradients(tile, first, queries);
    sums_.go_on(tile + 1);
  }

  /// Once every tile has added its part.
  void store() {
    for (const auto& [from, to] :
         {std::pair(sums_.dk, args_.dk), {sums_.dv, args_.dv}}) {
      const int64_t width = forward_.kv_heads * d_;
      const int64_t at = batch_ * forward_.keys * width + kv_head_ * d_;
      simd::convert(
          {forward_.keys,
           d_,
           {from, DType::f32, d_},
           {advance(to, forward_.type, at), forward_.type, width}});
    }
  }

 private:
  const void* at(const HeadsView& x, int64_t row, int64_t head) const {
    return element_at(x, forward_.type, batch_, row, head);
  }

  ConstMatrix packed(
      HeadsView x,
      int64_t first,
      int64_t queries,
      float scale,
      Scratch& scratch) const {
    const Matrix out{scratch.get<float>(queries * group_ * d_), type_, d_};
    x.data = at(x, first, kv_head_ * group_);
    simd::pack_queries({queries, group_, d_, scale, forward_.type, x, out});
    return as_const(out);
  }

  void gradients(int64_t tile, int64_t first, int64_t queries) {
    // The key at which the tile's first query stands.
    const int64_t here = forward_.keys - forward_.length + first;
    const auto [begin, end] = keys_seen(forward_, here, queries);
    if (begin >= end) {
      clear_dq(first, queries);
      return sums_.wait_for(tile);
    }
    const int64_t rows = queries * group_;
    const int64_t keys = end - begin;
    const auto q =
        packed(forward_.q, first, queries, forward_.scale, buffers_.q);
    const auto dout = packed(args_.dout, first, queries, 1, buffers_.dout);
    const ConstMatrix k{
        at(forward_.k, begin, kv_head_), forward_.type, forward_.k.row_stride};
    const ConstMatrix v{
        at(forward_.v, begin, kv_head_), forward_.type, forward_.v.row_stride};
    float* weights = buffers_.weights.get<float>(rows * keys);
    float* dp = buffers_.dp.get<float>(rows * keys);
    product_(
        {.m = rows,
         .n = keys,
         .k = d_,
         .x = q,
         .weight = k,
         .out = {weights, DType::f32, keys}});
    float* capped = cap(weights, rows, keys);
    weigh(weights, rows, keys, here - begin);
    product_(
        {.m = rows,
         .n = keys,
         .k = d_,
         .x = dout,
         .weight = v,
         .out = {dp, DType::f32, keys}});
    const Matrix p{buffers_.p.get<float>(rows * keys), type_, keys};
    const Matrix ds{buffers_.ds.get<float>(rows * keys), type_, keys};
    const float* sum = buffers_.sum.get<float>(rows);
    simd::softmax_gradient({rows, keys, weights, dp, sum, type_, p, ds});
    if (capped) {
      uncap(ds, capped, rows, keys);
    }
    store_dq(ds, k, first, queries, keys);
    sums_.wait_for(tile);
    add_turned(p, dout, rows, keys, sums_.dv + begin * d_);
    add_turned(ds, q, rows, keys, sums_.dk + begin * d_);
  }

  /// Caps the scores and returns a copy of them; null where there is no cap.
  float* cap(float* scores, int64_t rows, int64_t keys) {
    if (forward_.cap <= 0) {
      return nullptr;
    }
    simd::cap_scores({rows, keys, scores, keys, forward_.cap});
    float* copy = buffers_.capped.get<float>(rows * keys);
    std::copy_n(scores, rows * keys, copy);
    return copy;
  }

  void
  uncap(const Matrix& ds, const float* capped, int64_t rows, int64_t keys) {
    for (int64_t i = 0; i < rows * keys; ++i) {
      const float part = capped[i] / forward_.cap;
      store_at(
          ds.data,
          ds.type,
          i,
          load_at(ds.data, ds.type, i) * (1 - part * part));
    }
  }

  /// Masks the scores, turns them into exp(score - max), and sums these by row.
  void weigh(float* scores, int64_t rows, int64_t keys, int64_t here) {
    float* max = buffers_.max.get<float>(rows);
    float* sum = buffers_.sum.get<float>(rows);
    start_softmax(forward_, kv_head_, rows, max, sum);
    auto weights = seen_weights(forward_, here);
    weights.rows = rows;
    weights.columns = weights.padded = weights.stride = keys;
    weights.scores = scores;
    weights.max = max;
    weights.sum = sum;
    weights.rescale = buffers_.rescale.get<float>(rows);
    simd::attention_weights(weights);
  }

  /// sums [keys, head_dim] += x [rows, keys]^T * y [rows, head_dim].
  void add_turned(
      const Matrix& x,
      const ConstMatrix& y,
      int64_t rows,
      int64_t keys,
      float* sums) {
    void* turned = buffers_.turned.get<float>(rows * keys);
    simd::transpose(
        {.rows = rows,
         .columns = keys,
         .x = {x.data, x.type, x.stride},
         .out = turned,
         .out_stride = rows});
    product_(
        {.m = keys,
         .n = d_,
         .k = rows,
         .x = {turned, type_, rows},
         .weight = y,
         .residual = {sums, DType::f32, d_},
         .out = {sums, DType::f32, d_},
         .weight_by_depth = true});
  }

  void* dq_at(int64_t query) const {
    const int64_t width = forward_.heads * d_;
    return advance(
        args_.dq,
        forward_.type,
        (batch_ * forward_.length + query) * width + kv_head_ * group_ * d_);
  }

  void store_dq(
      const Matrix& ds,
      const ConstMatrix& k,
      int64_t first,
      int64_t queries,
      int64_t keys) {
    const int64_t rows = queries * group_;
    float* dq = buffers_.dq.get<float>(rows * d_);
    product_(
        {.m = rows,
         .n = d_,
         .k = keys,
         .x = {ds.data, ds.type, ds.stride},
         .weight = k,
         .out = {dq, DType::f32, d_},
         .weight_by_depth = true});
    // store_rows divides by sums: by the reciprocals of the scale here.
    float* inverse = buffers_.rescale.get<float>(rows);
    std::fill_n(inverse, rows, 1.0f / forward_.scale);
    simd::store_rows(
        {queries,
         group_,
         d_,
         dq,
         inverse,
         {dq_at(first), forward_.type, forward_.heads * d_}});
  }

  void clear_dq(int64_t first, int64_t queries) {
    for (int64_t i = first; i < first + queries; ++i) {
      std::memset(dq_at(i), 0, size_t(group_ * d_) * size_of(forward_.type));
    }
  }

  const AttentionBackwardArgs& args_;
  const AttentionArgs& forward_;
  ProductFn product_;
  DType type_;
  int64_t batch_;
  int64_t kv_head_;
  int64_t group_;
  int64_t d_;
  PairSums& sums_;
  BackwardBuffers& buffers_;
};

/// Runs all tiles of `count` pairs of a batch row and a kv head from `first`
/// on.
void run_pairs(
    const AttentionBackwardArgs& args,
    ProductFn product,
    DType type,
    int64_t first,
    int64_t count) {
  thread_local Scratch gradients;
  const auto& forward = args.forward;
  const int64_t queries = queries_of_tile(forward);
  const int64_t tiles = count_tiles(forward);
  const int64_t size = forward.keys * forward.head_dim;
  float* values = gradients.get<float>(2 * count * size);
  std::vector<PairSums> sums(static_cast<size_t>(count));
  parallel_tasks(count, [&](int64_t i) {
    auto& own = sums[size_t(i)];
    own.dk = values + 2 * i * size;
    own.dv = own.dk + size;
    std::fill_n(own.dk, 2 * size, 0.0f);
  });
  // In the order of tiles: those that a tile waits for have begun before it.
  parallel_tasks(tiles * count, [&](int64_t task) {
    thread_local BackwardBuffers buffers;
    // A task even where it is the only one: how many pairs run together depends
    // on the number of threads.
    const Task alone;
    const int64_t tile = task / count;
    auto& own = sums[size_t(task % count)];
    try {
      BackwardTile made(
          args, product, type, first + task % count, own, buffers);
      const int64_t from = tile * queries;
      made.run(tile, from, std::min(queries, forward.length - from));
      if (tile + 1 == tiles) {
        made.store();
      }
    } catch (...) {
      for (auto& any : sums) {
        any.go_on(tiles);  // nobody waits for what will not come
      }
      throw;
    }
  });
}

}  // namespace

void attention_backward_by_tiles(
    const AttentionBackwardArgs& args,
    ProductFn product,
    DType tile_type) {
  if (args.forward.length == 0 || args.forward.batch == 0) {
    return;
  }
  const int64_t pairs = args.forward.batch * args.forward.kv_heads;
  const int64_t wanted = kTilesPerThread * thread_count();
  const int64_t together = std::clamp<int64_t>(
      divide_up(wanted, count_tiles(args.forward)), 1, pairs);
  for (int64_t first = 0; first < pairs; first += together) {
    run_pairs(
        args, product, tile_type, first, std::min(together, pairs - first));
  }
}

}  // namespace pennyweight::kernels
