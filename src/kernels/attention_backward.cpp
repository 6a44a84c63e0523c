#include <algorithm>
#include <cstring>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiles.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kTileRows = 192;  // rows that a tile of queries aims at

struct Buffers {
  Scratch q, dout, weights, slopes, capped, p, ds, turned, dq, dk, dv;
  Scratch max, sum, rescale;
};

/// One batch row and kv head: all its queries, tile by tile.
class Pair {
 public:
  Pair(
      const AttentionBackwardArgs& args,
      ProductFn product,
      DType type,
      int64_t pair,
      Buffers& buffers)
      : args_(args),
        forward_(args.forward),
        product_(product),
        type_(type),
        batch_(pair / forward_.kv_heads),
        kv_head_(pair % forward_.kv_heads),
        group_(forward_.heads / forward_.kv_heads),
        d_(forward_.head_dim),
        buffers_(buffers) {}

  void run() {
    dk_ = buffers_.dk.get<float>(forward_.keys * d_);
    dv_ = buffers_.dv.get<float>(forward_.keys * d_);
    std::fill_n(dk_, forward_.keys * d_, 0.0f);
    std::fill_n(dv_, forward_.keys * d_, 0.0f);
    const int64_t queries = std::min(
        forward_.length, std::max<int64_t>(16, kTileRows / group_ / 16 * 16));
    for (int64_t first = 0; first < forward_.length; first += queries) {
      tile(first, std::min(queries, forward_.length - first));
    }
    for (const auto& [from, to] : {std::pair(dk_, args_.dk), {dv_, args_.dv}}) {
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

  void tile(int64_t first, int64_t queries) {
    // The key at which the tile's first query stands.
    const int64_t here = forward_.keys - forward_.length + first;
    const auto [begin, end] = keys_seen(forward_, here, queries);
    if (begin >= end) {
      return clear_dq(first, queries);
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
    float* slopes = buffers_.slopes.get<float>(rows * keys);
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
         .out = {slopes, DType::f32, keys}});
    const Matrix p{buffers_.p.get<float>(rows * keys), type_, keys};
    const Matrix ds{buffers_.ds.get<float>(rows * keys), type_, keys};
    const float* sum = buffers_.sum.get<float>(rows);
    simd::softmax_slopes({rows, keys, weights, slopes, sum, type_, p, ds});
    if (capped) {
      uncap(ds, capped, rows, keys);
    }
    add_turned(p, dout, rows, keys, dv_ + begin * d_);
    add_turned(ds, q, rows, keys, dk_ + begin * d_);
    store_dq(ds, k, first, queries, keys);
  }

  /// Caps the scores and keeps them; null where there is no cap.
  float* cap(float* scores, int64_t rows, int64_t keys) {
    if (forward_.cap <= 0) {
      return nullptr;
    }
    simd::cap_scores(scores, rows, keys, keys, forward_.cap);
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

  /// Scores to exp(score - max), masked, and their sums.
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
    // Divided by the reciprocal of the scale, as if those were the sums.
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
  Buffers& buffers_;
  float* dk_ = nullptr;
  float* dv_ = nullptr;
};

}  // namespace

void attention_backward_by_tiles(
    const AttentionBackwardArgs& args,
    ProductFn product,
    DType tile_type) {
  if (args.forward.length == 0 || args.forward.batch == 0) {
    return;
  }
  const int64_t pairs = args.forward.batch * args.forward.kv_heads;
  parallel_tasks(pairs, [&](int64_t pair) {
    thread_local Buffers buffers;
    Pair(args, product, tile_type, pair, buffers).run();
  });
}

}  // namespace pennyweight::kernels
