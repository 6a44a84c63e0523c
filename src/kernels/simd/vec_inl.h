// Included once for each instruction set, hence no #pragma once.
#if defined(PENNYWEIGHT_SIMD_VEC_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef PENNYWEIGHT_SIMD_VEC_INL_H
#undef PENNYWEIGHT_SIMD_VEC_INL_H
#else
#define PENNYWEIGHT_SIMD_VEC_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Sixteen lanes are the most that the kernels are written for.
using Floats = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using Ints = hn::RebindToSigned<Floats>;

HWY_INLINE int64_t lanes() {
  return int64_t(hn::Lanes(Floats()));
}

// Loads convert to float32; stores convert from it and round to nearest even.

HWY_INLINE Vec load(const float* p) {
  return hn::LoadU(Floats(), p);
}

HWY_INLINE Vec load(const BFloat16* p) {
  const hn::Rebind<uint16_t, Floats> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  const auto wide = hn::PromoteTo(Words(), bits);
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(wide));
}

HWY_INLINE Vec load(const Float16* p) {
  const hn::Rebind<hwy::float16_t, Floats> d16;
  return hn::PromoteTo(
      Floats(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}

HWY_INLINE void store(Vec v, float* p) {
  hn::StoreU(v, Floats(), p);
}

/// The bits of v, rounded so that the upper half is the nearest bfloat16. A NaN
/// whose lower bits are all set would overflow: arithmetic makes none, and
/// convert() replaces them.
HWY_INLINE hn::Vec<Words> rounded_bits(Vec v) {
  const Words words;
  const auto bits = hn::BitCast(words, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1u));
  return hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7fffu)));
}

HWY_INLINE void store(Vec v, BFloat16* p) {
  const hn::Rebind<uint16_t, Floats> d16;
  const auto high = hn::TruncateTo(d16, hn::ShiftRight<16>(rounded_bits(v)));
  hn::StoreU(high, d16, reinterpret_cast<uint16_t*>(p));
}

HWY_INLINE void store(Vec v, Float16* p) {
  const hn::Rebind<hwy::float16_t, Floats> d16;
  hn::StoreU(hn::DemoteTo(d16, v), d16, reinterpret_cast<hwy::float16_t*>(p));
}

/// Stores two neighbouring vectors at once, which is cheaper in bfloat16.
template <class T>
HWY_INLINE void store_two(Vec v0, Vec v1, T* p) {
  store(v0, p);
  store(v1, p + hn::Lanes(Floats()));
}

/// Stores the upper halves of two vectors' words.
HWY_INLINE void
store_halves(hn::Vec<Words> v0, hn::Vec<Words> v1, BFloat16* p) {
  const hn::Repartition<uint16_t, Floats> d16;
  hn::StoreU(
      hn::ConcatOdd(d16, hn::BitCast(d16, v1), hn::BitCast(d16, v0)),
      d16,
      reinterpret_cast<uint16_t*>(p));
}

template <>
HWY_INLINE void store_two(Vec v0, Vec v1, BFloat16* p) {
  store_halves(rounded_bits(v0), rounded_bits(v1), p);
}

/// The first n values at p, then zeros.
template <class T>
HWY_INLINE Vec load_some(const T* p, int64_t n) {
  HWY_ALIGN T buffer[16] = {};
  std::memcpy(buffer, p, size_t(n) * sizeof(T));
  return load(buffer);
}

template <class T>
HWY_INLINE void store_some(Vec v, T* p, int64_t n) {
  HWY_ALIGN T buffer[16];
  store(v, buffer);
  std::memcpy(p, buffer, size_t(n) * sizeof(T));
}

HWY_INLINE float sum_of(Vec v) {
  return hn::GetLane(hn::SumOfLanes(Floats(), v));
}

HWY_INLINE float max_of(Vec v) {
  return hn::GetLane(hn::MaxOfLanes(Floats(), v));
}

/// Calls body(i) for the first value of each whole vector of 0 .. n - 1, and
/// then rest(i, count) for what is left.
template <class Body, class Rest>
HWY_INLINE void for_vectors(int64_t n, const Body& body, const Rest& rest) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    body(i);
  }
  if (i < n) {
    rest(i, n - i);
  }
}

/// The largest of n values; -infinity where there are none.
template <class T>
HWY_INLINE float largest(const T* x, int64_t n) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  Vec max = hn::Set(Floats(), kNone);
  float rest_max = kNone;
  for_vectors(
      n,
      [&](int64_t i) HWY_ATTR { max = hn::Max(max, load(x + i)); },
      [&](int64_t i, int64_t rest) HWY_ATTR {
        for (int64_t j = i; j < i + rest; ++j) {
          rest_max = std::max(rest_max, to_float(x[j]));
        }
      });
  return std::max(rest_max, max_of(max));
}

template <class T>
HWY_INLINE const T* row_of(const ConstMatrix& x, int64_t row) {
  return static_cast<const T*>(x.data) + row * x.stride;
}

template <class T>
HWY_INLINE T* row_of(const Matrix& x, int64_t row) {
  return static_cast<T*>(x.data) + row * x.stride;
}

/// The values of a head's row.
template <class T>
HWY_INLINE const T*
head_row(const HeadsView& x, int64_t batch, int64_t row, int64_t head) {
  return static_cast<const T*>(x.data) + batch * x.batch_stride +
      row * x.row_stride + head * x.head_stride;
}

/// out[i] = f(in[i]...) for i < n. Inputs may be of several types, and one
/// may be `out` itself.
template <class F, class U, class... T>
HWY_INLINE void map_row(int64_t n, U* out, const F& f, const T*... in) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    const Vec v0 = f(load(in + i)...);
    const Vec v1 = f(load(in + i + step)...);
    store_two(v0, v1, out + i);
  }
  for (; i < n; i += step) {
    if (i + step <= n) {
      store(f(load(in + i)...), out + i);
    } else {
      store_some(f(load_some(in + i, n - i)...), out + i, n - i);
    }
  }
}

/// out = x, converted.
template <class T, class U>
void copy_row(const T* x, U* out, int64_t n) {
  map_row(
      n, out, [](Vec v) HWY_ATTR { return v; }, x);
}

/// out = factor * x; out may be x itself.
template <class T, class U>
void scale_row(const T* x, float factor, U* out, int64_t n) {
  const Vec f = hn::Set(Floats(), factor);
  map_row(
      n, out, [&](Vec v) HWY_ATTR { return hn::Mul(v, f); }, x);
}

// exp(x) below these is subnormal, above them near infinity.
constexpr float kExpLowest = -87.33f;
constexpr float kExpHighest = 88.37f;

/// exp(x) for kExpLowest <= x <= kExpHighest or NaN, within 2 units in the
/// last place. x = n ln 2 + r, and exp(r) by the polynomial of degree 5 whose
/// largest relative error on |r| <= ln(2) / 2 is least, 0x1.8p-24.
HWY_INLINE Vec exp_within(Vec x) {
  const Floats d;
  const Ints ints;
  // Adding 1.5 * 2^23 leaves n, the nearest integer, in the lowest bits.
  const Vec magic = hn::Set(d, 12582912.0f);
  const Vec shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const Vec n = hn::Sub(shifted, magic);
  const Vec r = hn::NegMulAdd(n, hn::Set(d, 0.693147181f), x);
  Vec p = hn::Set(d, 0.008290229365f);
  p = hn::MulAdd(p, r, hn::Set(d, 0.041898388416f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.166676402092f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.499991446733f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.999999701977f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(ints, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(ints, p), exponent));
}

// A NaN x stays NaN: x86's instructions give their second operand where one is
// a NaN, ARM's give the other.

HWY_INLINE Vec at_least(Vec lowest, Vec x) {
#if HWY_ARCH_X86
  return hn::Max(lowest, x);
#else
  return hn::IfThenElse(hn::Lt(x, lowest), lowest, x);
#endif
}

HWY_INLINE Vec at_most(Vec highest, Vec x) {
#if HWY_ARCH_X86
  return hn::Min(highest, x);
#else
  return hn::IfThenElse(hn::Gt(x, highest), highest, x);
#endif
}

/// exp(x), which is 0 below kExpLowest and stays what it is at kExpHighest
/// above it. NaN stays NaN.
HWY_INLINE Vec exp_of(Vec x) {
  const Floats d;
  const Vec lowest = hn::Set(d, kExpLowest);
  const Vec y = at_most(hn::Set(d, kExpHighest), at_least(lowest, x));
  return hn::IfThenZeroElse(hn::Lt(x, lowest), exp_within(y));
}

/// exp_of for x that are at most 0 or NaN.
HWY_INLINE Vec exp_of_negative(Vec x) {
  const Vec lowest = hn::Set(Floats(), kExpLowest);
  return hn::IfThenZeroElse(hn::Lt(x, lowest), exp_within(at_least(lowest, x)));
}

/// The sum of exp(x - max), where max is the largest x; the terms go to `out`
/// where that is not null. The sum is float32: n should be a thousand or so at
/// most.
template <class T>
HWY_INLINE float exp_terms(const T* x, float max, float* out, int64_t n) {
  const Vec shift = hn::Set(Floats(), max);
  Vec sum = hn::Zero(Floats());
  for_vectors(
      n,
      [&](int64_t i) HWY_ATTR {
        const Vec v = exp_of_negative(hn::Sub(load(x + i), shift));
        sum = hn::Add(sum, v);
        if (out) {
          store(v, out + i);
        }
      },
      [&](int64_t i, int64_t rest) HWY_ATTR {
        const Vec v = exp_of_negative(hn::Sub(load_some(x + i, rest), shift));
        const auto mask = hn::FirstN(Floats(), size_t(rest));
        sum = hn::Add(sum, hn::IfThenElseZero(mask, v));
        if (out) {
          store_some(v, out + i, rest);
        }
      });
  return sum_of(sum);
}

/// 1 / x for 1 <= x <= 2^127, within 2 units in the last place; 0 beyond
/// 2^126, where it is subnormal.
HWY_INLINE Vec reciprocal(Vec x) {
  const Floats d;
#if HWY_TARGET == HWY_AVX3
  // 14 good bits, doubled by a step of Newton's; division takes longer.
  const Vec y = hn::ApproximateReciprocal(x);
  return hn::Mul(y, hn::NegMulAdd(x, y, hn::Set(d, 2.0f)));
#else
  return hn::Div(hn::Set(d, 1.0f), x);
#endif
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#endif
