#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/attention.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/access.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/tiled/tiles.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

template <class T, class U>
void pack_rows(const simd::PackQueriesArgs& args) {
  U* out = static_cast<U*>(args.out.data);
  for (int64_t i = 0; i < args.queries; ++i) {
    const T* q = static_cast<const T*>(args.q.data) + i * args.q.row_stride;
    for (int64_t g = 0; g < args.group; ++g, out += args.out.stride) {
      scale_row(q + g * args.q.head_stride, args.scale, out, args.head_dim);
    }
  }
}

void pack_queries(const simd::PackQueriesArgs& args) {
  visit_type(args.type, [&]<class T>(T*) {
    if (args.out.type == DType::bf16) {
      pack_rows<T, BFloat16>(args);
    } else {
      pack_rows<T, float>(args);
    }
  });
}

HWY_INLINE void store_weights(Vec v0, Vec v1, float* p) {
  store_two(v0, v1, p);
}

/// Rounds ties up instead of to even, which is cheaper: one weight of 65,536 is
/// a tie.
HWY_INLINE void store_weights(Vec v0, Vec v1, BFloat16* p) {
  const Words words;
  const auto half = hn::Set(words, 0x8000u);
  store_halves(
      hn::Add(hn::BitCast(words, v0), half),
      hn::Add(hn::BitCast(words, v1), half),
      p);
}

/// out = exp(x - max); returns the sum. x and out may share their start.
template <class U>
float exp_scores(const float* x, float max, U* out, int64_t n) {
  const Floats d;
  const int64_t step = lanes();
  const Vec shift = hn::Set(d, max);
  Vec sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    const Vec v0 = exp_of_negative(hn::Sub(load(x + i), shift));
    const Vec v1 = exp_of_negative(hn::Sub(load(x + i + step), shift));
    sum0 = hn::Add(sum0, v0);
    sum1 = hn::Add(sum1, v1);
    store_weights(v0, v1, out + i);
  }
  for (; i < n; i += step) {
    const int64_t rest = std::min(step, n - i);
    const Vec v = hn::IfThenElseZero(
        hn::FirstN(d, size_t(rest)),
        exp_of_negative(hn::Sub(load_some(x + i, rest), shift)));
    sum0 = hn::Add(sum0, v);
    store_some(v, out + i, rest);
  }
  return sum_of(hn::Add(sum0, sum1));
}

template <class U>
void weigh_row(const simd::WeightsArgs& args, int64_t row) {
  float* scores = args.scores + row * args.stride;
  // bfloat16 weights take half the room of scores, so that these rows are
  // written over rows of scores that have been read.
  U* out = reinterpret_cast<U*>(args.scores) + row * args.stride;
  const int64_t query = row / args.group;
  const int64_t begin = std::clamp<int64_t>(
      query + std::max(args.lowest, -query), 0, args.columns);
  const int64_t end = std::clamp<int64_t>(
      query + std::min(args.highest, args.columns) + 1, begin, args.columns);
  const float old_max = args.max[row];
  float max = old_max;
  if (begin < end) {
    max = std::max(max, largest(scores + begin, end - begin));
  }
  const bool sees_none = max == -std::numeric_limits<float>::infinity();
  float sum = 0;
  float rescale = 1;
  if (!sees_none) {
    rescale = max > old_max ? std::exp(old_max - max) : 1.0f;
    sum = exp_scores(scores + begin, max, out + begin, end - begin);
  }
  const int64_t done = sees_none ? begin : end;
  std::memset(out, 0, size_t(begin) * sizeof(U));
  std::memset(out + done, 0, size_t(args.padded - done) * sizeof(U));
  args.max[row] = max;
  args.rescale[row] = rescale;
  args.sum[row] = args.sum[row] * rescale + sum;
}

void attention_weights(const simd::WeightsArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    if (args.out_type == DType::bf16) {
      weigh_row<BFloat16>(args, row);
    } else {
      weigh_row<float>(args, row);
    }
  }
}

void scale_rows(const simd::ScaleRowsArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    float* sums = args.sums + i * args.columns;
    scale_row(sums, args.factors[i], sums, args.columns);
  }
}

// tanh(x) = (1 - t) / (1 + t) with t = exp(-2 |x|), under x's sign.
void cap_scores(const simd::CapScoresArgs& args) {
  const auto to_exponent = hn::Set(Floats(), -2.0f / args.cap);
  const auto limit = hn::Set(Floats(), args.cap);
  const auto one = hn::Set(Floats(), 1.0f);
  const auto capped = [&](Vec x) HWY_ATTR {
    const auto t = exp_of_negative(hn::Mul(hn::Abs(x), to_exponent));
    const auto size = hn::Div(hn::Sub(one, t), hn::Add(one, t));
    return hn::CopySign(hn::Mul(limit, size), x);
  };
  for (int64_t row = 0; row < args.rows; ++row) {
    float* x = args.scores + row * args.stride;
    map_row(args.columns, x, capped, static_cast<const float*>(x));
  }
}

void store_rows(const simd::StoreRowsArgs& args) {
  visit_type(args.out.type, [&]<class U>(U*) {
    for (int64_t i = 0; i < args.queries; ++i) {
      U* out = static_cast<U*>(args.out.data) + i * args.out.stride;
      for (int64_t g = 0; g < args.group; ++g, out += args.head_dim) {
        const int64_t row = i * args.group + g;
        const float sum = args.sum[row];
        scale_row(
            args.sums + row * args.head_dim,
            sum == 0 ? 0.0f : 1.0f / sum,
            out,
            args.head_dim);
      }
    }
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(pack_queries, PackQueriesArgs)
SIMD_EXPORT(attention_weights, WeightsArgs)
SIMD_EXPORT(scale_rows, ScaleRowsArgs)
SIMD_EXPORT(cap_scores, CapScoresArgs)
SIMD_EXPORT(store_rows, StoreRowsArgs)

namespace simd {

void attention(const AttentionArgs& args) {
  attention_by_tiles(args, simd::matmul, DType::f32);
}

void attention_backward(const AttentionBackwardArgs& args) {
  attention_backward_by_tiles(args, simd::matmul, DType::f32);
}

}  // namespace simd

}  // namespace pennyweight::kernels

#endif
