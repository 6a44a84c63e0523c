#include "kernels/quant_codes.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/access.h"

namespace pennyweight::kernels {

namespace {

std::array<float, 16> make_e2m1() {
  const float magnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  std::array<float, 16> values{};
  for (int code = 0; code < 16; ++code) {
    values[code] = code < 8 ? magnitudes[code] : -magnitudes[code - 8];
  }
  return values;
}

std::array<float, 256> make_e4m3() {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) {
    const int exponent = (code >> 3) & 15;
    const int mantissa = code & 7;
    float value = exponent == 0
        ? std::ldexp(float(mantissa), -9)
        : std::ldexp(float(8 + mantissa), exponent - 10);
    if (exponent == 15 && mantissa == 7) {
      value = std::numeric_limits<float>::quiet_NaN();
    }
    values[code] = code < 128 ? value : -value;
  }
  return values;
}

std::array<float, 256> make_e8m0() {
  std::array<float, 256> values{};
  for (int code = 0; code < 255; ++code) {
    values[code] = std::ldexp(1.0f, code - 127);
  }
  values[255] = std::numeric_limits<float>::infinity();
  return values;
}

}  // namespace

const float* e2m1_values() {
  static const auto values = make_e2m1();
  return values.data();
}

const float* e4m3_values() {
  static const auto values = make_e4m3();
  return values.data();
}

const float* e8m0_values() {
  static const auto values = make_e8m0();
  return values.data();
}

const float* code_values(QuantMode mode) {
  switch (mode) {
    case QuantMode::mxfp4:
    case QuantMode::nvfp4:
      return e2m1_values();
    case QuantMode::mxfp8:
      return e4m3_values();
    default:
      return nullptr;
  }
}

GroupScale group_scale(const QuantizedMatrix& weight, int64_t index) {
  if (weight.mode == QuantMode::affine) {
    return {
        load_at(weight.scales, weight.scale_type, index),
        load_at(weight.biases, weight.scale_type, index)};
  }
  const uint8_t code = static_cast<const uint8_t*>(weight.scales)[index];
  const float* values =
      weight.mode == QuantMode::nvfp4 ? e4m3_values() : e8m0_values();
  return {values[code], 0.0f};
}

}  // namespace pennyweight::kernels
