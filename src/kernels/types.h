#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace pennyweight::kernels {

/// Floating types of the kernels' inputs and outputs. Sums are float32.
enum class DType : uint8_t { f32, bf16, f16 };

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline size_t size_of(DType type) {
  return type == DType::f32 ? 4 : 2;
}

/// Calls f with a null pointer of the C++ type that stands for `type`.
template <class F>
decltype(auto) visit_type(DType type, F&& f) {
  switch (type) {
    case DType::bf16:
      return f(static_cast<BFloat16*>(nullptr));
    case DType::f16:
      return f(static_cast<Float16*>(nullptr));
    default:
      return f(static_cast<float*>(nullptr));
  }
}

/// The same with the types of two.
template <class F>
decltype(auto) visit_types(DType first, DType second, F&& f) {
  return visit_type(first, [&](auto* a) {
    return visit_type(second, [&](auto* b) { return f(a, b); });
  });
}

inline float to_float(float x) {
  return x;
}

inline float to_float(BFloat16 x) {
  return std::bit_cast<float>(uint32_t(x.bits) << 16);
}

inline float to_float(Float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 31u;
  const uint32_t mantissa = x.bits & 1023u;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24
    const float value = float(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

/// Round to nearest, ties to even; NaN stays NaN.
inline void from_float(float x, float& out) {
  out = x;
}

inline void from_float(float x, BFloat16& out) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  out.bits = uint16_t((is_nan ? bits | 0x400000u : rounded) >> 16);
}

inline void from_float(float x, Float16& out) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal: 2^-14 and above
    const uint32_t odd = (magnitude >> 13) & 1u;
    half = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  } else {
    // Adding 1/2 leaves the mantissa in units of 2^-24, rounded to even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(shifted) - 0x3f000000u;
  }
  out.bits = uint16_t(sign | half);
}

}  // namespace pennyweight::kernels
