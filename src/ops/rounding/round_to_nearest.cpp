// Affine, for a group w and b bits: e is its largest value by magnitude, the
// grid runs from there to the other extreme, s = (max - min) / (2^b - 1) with
// e's end negative or positive so that e is code 0, and then s is nudged so
// that zero is on the grid: s = e / round(e / s). codes = round((w - e) / s).
//
// The fp modes scale a group so that its largest magnitude lands near the
// element type's largest value: by a power of two (mxfp4, mxfp8) or an e4m3
// number (nvfp4), and take the nearest e2m1 or e4m3 value.
//
// Each step is done in the type in which mx::quantize does it, since bits
// depend on it: affine in float32, the fp modes in the weights' own type.

#include "ops/rounding/round_to_nearest.h"

#include <mlx/types/half_types.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "kernels/threads.h"

namespace pennyweight {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int kMaxGroup = 128;
constexpr int kLanes = 8;
// Adding this to a number in [0, 2^22] rounds it to an integer, half to even,
// in the low bits; std::rint would be a call on the x86 baseline.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// Eight codes are `bits` bytes, lowest code first.
template <int bits>
void pack_eight(const uint8_t* codes, uint8_t* out) {
  uint64_t word = 0;
  for (int i = 0; i < kLanes; ++i) {
    word |= uint64_t{codes[i]} << (i * bits);
  }
  std::memcpy(out, &word, bits);
}

struct Range {
  float low;
  float high;
};

Range find_range(const float* values, int count) {
  std::array<float, kLanes> low, high;
  low.fill(std::numeric_limits<float>::infinity());
  high.fill(-std::numeric_limits<float>::infinity());
  for (int i = 0; i < count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      low[lane] = std::min(low[lane], values[i + lane]);
      high[lane] = std::max(high[lane], values[i + lane]);
    }
  }
  return {
      *std::min_element(low.begin(), low.end()),
      *std::max_element(high.begin(), high.end())};
}

template <class T, int bits>
void affine_group(
    const T* weights,
    int group_size,
    uint8_t* codes,
    T* out_scale,
    T* out_bias) {
  constexpr float bins = (1 << bits) - 1;
  constexpr float smallest = 1e-7f;
  float values[kMaxGroup];
  for (int i = 0; i < group_size; ++i) {
    values[i] = static_cast<float>(weights[i]);
  }
  auto [low, high] = find_range(values, group_size);
  bool from_low = std::abs(low) > std::abs(high);
  float scale = std::max((high - low) / bins, smallest);
  scale = from_low ? scale : -scale;
  float edge = from_low ? low : high;
  float steps = std::rint(edge / scale);
  float bias = 0;
  if (steps != 0) {
    scale = edge / steps;
    bias = edge;
  }
  uint8_t rounded[kMaxGroup];
  for (int i = 0; i < group_size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      float code = (values[i + lane] - bias) / scale;
      code = std::min(std::max(code, 0.0f), bins) + kRounder;
      rounded[i + lane] = static_cast<uint8_t>(std::bit_cast<uint32_t>(code));
    }
    pack_eight<bits>(rounded + i, codes + i * bits / 8);
  }
  *out_scale = static_cast<T>(scale);
  *out_bias = static_cast<T>(bias);
}

template <class T, int bits>
void affine(
    const T* weights,
    int64_t groups,
    int group_size,
    const RoundedWeights& out) {
  auto* scales = static_cast<T*>(out.scales);
  auto* biases = static_cast<T*>(out.biases);
  int64_t bytes = group_size * bits / 8;
  kernels::parallel_ranges(groups, 1024, [=](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      affine_group<T, bits>(
          weights + group * group_size,
          group_size,
          out.codes + group * bytes,
          scales + group,
          biases + group);
    }
  });
}

// The magnitudes of e2m1; codes 8 to 15 are their negatives.
constexpr float kE2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

// The nearest e2m1 value, the first of equals, by distances in type D.
template <class D>
uint8_t to_e2m1(float value) {
  uint8_t best = 0;
  float least = 0;
  for (uint8_t code = 0; code < 16; ++code) {
    float candidate = code < 8 ? kE2m1[code] : -kE2m1[code - 8];
    auto distance =
        std::abs(static_cast<float>(static_cast<D>(value - candidate)));
    if (code == 0 || distance < least) {
      best = code;
      least = distance;
    }
  }
  return best;
}

// The nearest e4m3 value, half to even; beyond 448 is 448.
uint8_t to_e4m3(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = bits & 0x80000000u;
  bits ^= sign;
  uint32_t code = 0;
  if (bits >= 543u << 21) {  // 480, the first past the largest
    code = 0x7e;
  } else if (bits < 121u << 23) {  // 2^-6, below which steps are of 2^-9
    constexpr uint32_t kShift = 141u << 23;
    float shifted = std::bit_cast<float>(bits) + std::bit_cast<float>(kShift);
    code = std::bit_cast<uint32_t>(shifted) - kShift;
  } else {
    uint32_t odd = (bits >> 20) & 1;
    code = (bits - (120u << 23) + 0x7ffffu + odd) >> 20;
  }
  return static_cast<uint8_t>(code | sign >> 24);
}

float from_e4m3(uint8_t code) {
  int exponent = (code >> 3) & 15;
  int mantissa = code & 7;
  float value = exponent == 0
      ? std::ldexp(static_cast<float>(mantissa), -9)
      : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -value : value;
}

enum class FpMode { mxfp4, mxfp8, nvfp4 };

template <class T, FpMode mode>
uint8_t to_element(T value) {
  auto real = static_cast<float>(value);
  if constexpr (mode == FpMode::mxfp8) {
    return to_e4m3(real);
  } else if constexpr (mode == FpMode::mxfp4) {
    return to_e2m1<T>(real);
  } else {
    return to_e2m1<float>(real);
  }
}

// Codes of all 65,536 values of a 16-bit type.
template <class T, FpMode mode>
const uint8_t* element_table() {
  static const auto kTable = [] {
    std::array<uint8_t, 65536> table{};
    for (uint32_t bits = 0; bits < table.size(); ++bits) {
      table[bits] =
          to_element<T, mode>(std::bit_cast<T>(static_cast<uint16_t>(bits)));
    }
    return table;
  }();
  return kTable.data();
}

// The group's scale as it is stored, and as a number.
template <class T, FpMode mode>
float group_scale(T largest, uint8_t* stored) {
  constexpr float limit = mode == FpMode::mxfp8 ? 448 : 6;
  auto ratio = static_cast<T>(static_cast<float>(largest) / limit);
  if constexpr (mode == FpMode::nvfp4) {
    *stored = to_e4m3(static_cast<float>(ratio));
    return from_e4m3(*stored);
  }
  // The power of two at or above the ratio.
  int exponent = 0;
  float fraction = std::frexp(static_cast<float>(ratio), &exponent);
  exponent -= fraction == 0.5f;
  *stored = static_cast<uint8_t>(exponent + 127);
  return std::ldexp(1.0f, exponent);
}

template <class T, FpMode mode>
void fp_group(
    const T* weights,
    int group_size,
    const uint8_t* table,
    uint8_t* codes,
    uint8_t* stored_scale) {
  float largest = 0;
  for (int i = 0; i < group_size; ++i) {
    largest = std::max(largest, std::abs(static_cast<float>(weights[i])));
  }
  float scale = group_scale<T, mode>(static_cast<T>(largest), stored_scale);
  uint8_t rounded[kMaxGroup];
  for (int i = 0; i < group_size; ++i) {
    auto value = static_cast<T>(static_cast<float>(weights[i]) / scale);
    if constexpr (sizeof(T) == 2) {
      rounded[i] = table[std::bit_cast<uint16_t>(value)];
    } else {
      rounded[i] = to_element<T, mode>(value);
    }
  }
  if constexpr (mode == FpMode::mxfp8) {
    std::memcpy(codes, rounded, static_cast<size_t>(group_size));
  } else {
    for (int i = 0; i < group_size; i += kLanes) {
      pack_eight<4>(rounded + i, codes + i / 2);
    }
  }
}

template <class T, FpMode mode>
void fp(
    const T* weights,
    int64_t groups,
    int group_size,
    const RoundedWeights& out) {
  const uint8_t* table = nullptr;
  if constexpr (sizeof(T) == 2) {
    table = element_table<T, mode>();
  }
  auto* scales = static_cast<uint8_t*>(out.scales);
  int64_t bytes = mode == FpMode::mxfp8 ? group_size : group_size / 2;
  kernels::parallel_ranges(groups, 1024, [=](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      fp_group<T, mode>(
          weights + group * group_size,
          group_size,
          table,
          out.codes + group * bytes,
          scales + group);
    }
  });
}

template <class T>
void round_typed(
    const T* weights,
    int64_t groups,
    const QuantSpec& spec,
    const RoundedWeights& out) {
  if (spec.mode == "mxfp4") {
    return fp<T, FpMode::mxfp4>(weights, groups, spec.group_size, out);
  }
  if (spec.mode == "mxfp8") {
    return fp<T, FpMode::mxfp8>(weights, groups, spec.group_size, out);
  }
  if (spec.mode == "nvfp4") {
    return fp<T, FpMode::nvfp4>(weights, groups, spec.group_size, out);
  }
  switch (spec.bits) {
    case 2:
      return affine<T, 2>(weights, groups, spec.group_size, out);
    case 3:
      return affine<T, 3>(weights, groups, spec.group_size, out);
    case 4:
      return affine<T, 4>(weights, groups, spec.group_size, out);
    case 5:
      return affine<T, 5>(weights, groups, spec.group_size, out);
    case 6:
      return affine<T, 6>(weights, groups, spec.group_size, out);
    default:
      return affine<T, 8>(weights, groups, spec.group_size, out);
  }
}

}  // namespace

void round_to_nearest(
    const void* weights,
    mx::Dtype dtype,
    int64_t count,
    const QuantSpec& spec,
    const RoundedWeights& out) {
  int64_t groups = count / spec.group_size;
  if (dtype == mx::bfloat16) {
    round_typed(static_cast<const mx::bfloat16_t*>(weights), groups, spec, out);
  } else if (dtype == mx::float16) {
    round_typed(static_cast<const mx::float16_t*>(weights), groups, spec, out);
  } else if (dtype == mx::float32) {
    round_typed(static_cast<const float*>(weights), groups, spec, out);
  } else {
    throw argument_error(
        "quantization", "only floating weights can be quantized");
  }
}

}  // namespace pennyweight
