#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/causal_conv.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "kernels/access.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

// So many channels of x and weight stay in the nearest cache from one position
// to the next.
constexpr int64_t kConvStrip = 1024;

/// weight [channels, width] as float32 [width, channels], and the bias behind
/// it, which is 0 where there is none.
std::vector<float> weight_by_tap(const CausalConvArgs& args) {
  std::vector<float> taps(size_t(args.channels * (args.width + 1)));
  for (int64_t c = 0; c < args.channels; ++c) {
    for (int64_t j = 0; j < args.width; ++j) {
      taps[size_t(j * args.channels + c)] =
          load_at(args.weight.data, args.weight.type, c * args.width + j);
    }
    if (args.bias.data) {
      taps[size_t(args.width * args.channels + c)] =
          load_at(args.bias.data, args.bias.type, c);
    }
  }
  return taps;
}

template <bool kSilu>
HWY_INLINE Vec activation(Vec x) {
  if constexpr (kSilu) {
    const Vec one = hn::Set(Floats(), 1.0f);
    return hn::Mul(x, reciprocal(hn::Add(one, exp_of(hn::Neg(x)))));
  }
  return x;
}

/// out [n] = bias + the sum over taps of a row of x times a row of weight.
template <int kTaps, bool kSilu, class T>
void conv_row(
    const T* x,
    int64_t x_stride,
    const float* weight,
    int64_t weight_stride,
    const float* bias,
    int64_t taps,
    T* out,
    int64_t n) {
  const int64_t count = kTaps > 0 ? kTaps : taps;
  const auto at = [&](int64_t c) HWY_ATTR {
    Vec sum = load(bias + c);
    for (int64_t j = 0; j < count; ++j) {
      const Vec w = load(weight + j * weight_stride + c);
      sum = hn::MulAdd(load(x + j * x_stride + c), w, sum);
    }
    return activation<kSilu>(sum);
  };
  const int64_t step = lanes();
  int64_t c = 0;
  for (; c + 2 * step <= n; c += 2 * step) {
    const Vec v0 = at(c), v1 = at(c + step);
    store_two(v0, v1, out + c);
  }
  for (; c + step <= n; c += step) {
    store(at(c), out + c);
  }
  if (c < n) {
    Vec sum = load_some(bias + c, n - c);
    for (int64_t j = 0; j < count; ++j) {
      const Vec w = load_some(weight + j * weight_stride + c, n - c);
      sum = hn::MulAdd(load_some(x + j * x_stride + c, n - c), w, sum);
    }
    store_some(activation<kSilu>(sum), out + c, n - c);
  }
}

/// Positions begin .. end - 1 of all sequences one after the other, of the
/// channels first .. first + n - 1.
template <bool kSilu, class T>
void conv_strip(
    const CausalConvArgs& args,
    const float* weight,
    int64_t begin,
    int64_t end,
    int64_t first,
    int64_t n) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = i % args.length;
    const int64_t taps = std::min(args.width, t + 1);
    const T* x = static_cast<const T*>(args.x) +
        i / args.length * args.x_batch_stride +
        (t + 1 - taps) * args.x_row_stride + first;
    const float* w = weight + (args.width - taps) * args.channels + first;
    const float* bias = weight + args.width * args.channels + first;
    T* out = static_cast<T*>(args.out) + i * args.channels + first;
    // Four is the width in all models that have such a convolution.
    const auto row = taps == 4 ? conv_row<4, kSilu, T> : conv_row<0, kSilu, T>;
    row(x, args.x_row_stride, w, args.channels, bias, taps, out, n);
  }
}

void causal_conv(const CausalConvArgs& args) {
  const auto weight = weight_by_tap(args);
  visit_type(args.type, [&]<class T>(T*) {
    const auto strip = args.silu ? conv_strip<true, T> : conv_strip<false, T>;
    parallel_ranges(
        args.batch * args.length,
        row_grain(args.channels),
        [&](int64_t begin, int64_t end) {
          for (int64_t c = 0; c < args.channels; c += kConvStrip) {
            const int64_t n = std::min(kConvStrip, args.channels - c);
            strip(args, weight.data(), begin, end, c, n);
          }
        });
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(causal_conv, CausalConvArgs)

}  // namespace pennyweight::kernels

#endif
