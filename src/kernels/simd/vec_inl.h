// Included once for each instruction set, hence no #pragma once.
#if defined(PENNYWEIGHT_SIMD_VEC_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef PENNYWEIGHT_SIMD_VEC_INL_H
#undef PENNYWEIGHT_SIMD_VEC_INL_H
#else
#define PENNYWEIGHT_SIMD_VEC_INL_H
#endif

#include <hwy/highway.h>

#include <cstring>

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

// Loads convert to float32, stores from it to nearest even.

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

HWY_INLINE void store(Vec v, BFloat16* p) {
  const Words words;
  const auto bits = hn::BitCast(words, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7fffu)));
  const auto quiet = hn::Or(bits, hn::Set(words, 0x400000u));
  const auto is_nan = hn::RebindMask(words, hn::IsNaN(v));
  const auto high = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
  const hn::Rebind<uint16_t, Floats> d16;
  hn::StoreU(hn::TruncateTo(d16, high), d16, reinterpret_cast<uint16_t*>(p));
}

HWY_INLINE void store(Vec v, Float16* p) {
  const hn::Rebind<hwy::float16_t, Floats> d16;
  hn::StoreU(hn::DemoteTo(d16, v), d16, reinterpret_cast<hwy::float16_t*>(p));
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

/// Calls body(p) for whole vectors of 0 .. n - 1, then rest(p, count).
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

/// exp(x), within 2 ulp; 0 below -87.3, where the result would be subnormal,
/// capped at exp(88.3). NaN stays NaN.
HWY_INLINE Vec exp_of(Vec x) {
  const Floats d;
  const Vec lowest = hn::Set(d, -87.33f);
  // The order of operands lets a NaN through.
  const Vec y = hn::Min(hn::Set(d, 88.37f), hn::Max(lowest, x));
  const Vec n = hn::Round(hn::Mul(y, hn::Set(d, 1.44269504f)));
  // ln 2 in two parts, of which n times the first is exact.
  Vec r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), y);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  // exp(r) = 1 + r + r^2 p(r), |r| <= ln(2) / 2 (Cephes, expf).
  Vec p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto biased = hn::Add(hn::ConvertTo(Ints(), n), hn::Set(Ints(), 127));
  const Vec power = hn::BitCast(d, hn::ShiftLeft<23>(biased));
  return hn::IfThenZeroElse(hn::Lt(x, lowest), hn::Mul(p, power));
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#endif
