#include "ops/check.h"

#include <mlx/ops.h>
#include <mlx/utils.h>

#include <sstream>

#include "core/error.h"

namespace pennyweight::ops {

namespace {

bool is_floating(mx::Dtype dtype) {
  return dtype == mx::float32 || dtype == mx::bfloat16 || dtype == mx::float16;
}

void require_bias(
    const std::optional<mx::array>& bias,
    int out,
    const char* where) {
  if (bias) {
    require_floating(*bias, where, "bias");
    require(
        bias->ndim() == 1 && bias->shape(0) == out,
        where,
        "the bias " + describe(*bias) +
            " does not have one value for each of " + std::to_string(out) +
            " outputs");
  }
}

}  // namespace

std::string describe(const mx::array& x) {
  std::ostringstream text;
  text << x.dtype() << " " << x.shape();
  return text.str();
}

void require(bool holds, const char* where, const std::string& what) {
  if (!holds) {
    throw argument_error(where, what);
  }
}

void require_floating(mx::Dtype dtype, const char* where) {
  std::ostringstream name;
  name << dtype;
  require(
      is_floating(dtype),
      where,
      "the result cannot be " + name.str() +
          "; ask for float32, bfloat16 or float16");
}

void require_floating(const mx::array& x, const char* where, const char* name) {
  require(
      is_floating(x.dtype()),
      where,
      std::string(name) + " is " + describe(x) +
          "; it has to be float32, bfloat16 or float16");
}

void check_linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias) {
  const char* where = "linear";
  require_floating(x, where, "x");
  require_floating(weight, where, "weight");
  require(
      x.ndim() >= 1 && weight.ndim() == 2 && x.shape(-1) == weight.shape(1) &&
          weight.shape(1) > 0,
      where,
      "x " + describe(x) + " and the weight " + describe(weight) +
          " do not share an input width");
  require_bias(bias, weight.shape(0), where);
}

void check_quantized(const QuantizedWeight& weight, const char* where) {
  const auto& mode = weight.mode;
  const int bits = weight.bits;
  const int group = weight.group_size;
  const bool affine = mode == "affine";
  const bool known = affine ? (bits >= 2 && bits <= 8 && bits != 7 &&
                               (group == 32 || group == 64 || group == 128))
                            : (mode == "mxfp4" && bits == 4 && group == 32) ||
          (mode == "mxfp8" && bits == 8 && group == 32) ||
          (mode == "nvfp4" && bits == 4 && group == 16);
  require(
      known,
      where,
      "there is no mode " + mode + " of " + std::to_string(bits) +
          " bits in groups of " + std::to_string(group));
  require(
      weight.codes.dtype() == mx::uint32 && weight.codes.ndim() == 2,
      where,
      "the codes are " + describe(weight.codes) +
          "; they have to be uint32 [out, in * bits / 32]");
  const int64_t in = int64_t(weight.codes.shape(1)) * 32 / bits;
  const mx::Shape groups{weight.codes.shape(0), int(in / group)};
  require(
      in % group == 0 && int64_t(weight.codes.shape(1)) * 32 % bits == 0 &&
          weight.scales.shape() == groups,
      where,
      "the scales " + describe(weight.scales) + " do not fit the codes " +
          describe(weight.codes));
  require(
      weight.biases.has_value() == affine,
      where,
      affine ? "an affine weight needs biases"
             : "a weight of mode " + mode + " has no biases");
  if (affine) {
    require_floating(weight.scales, where, "scales");
    require(
        weight.biases->shape() == groups &&
            weight.biases->dtype() == weight.scales.dtype(),
        where,
        "the biases " + describe(*weight.biases) + " differ from the scales " +
            describe(weight.scales));
  } else {
    require(
        weight.scales.dtype() == mx::uint8,
        where,
        "the scales of mode " + mode + " are " + describe(weight.scales) +
            "; they have to be uint8");
  }
}

void check_affine(const QuantizedWeight& weight) {
  if (weight.mode != "affine") {
    throw not_supported_error(
        "quantized_linear",
        "scales of mode " + weight.mode +
            " are not floats and have no gradient");
  }
}

void check_quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias) {
  const char* where = "quantized_linear";
  check_quantized(weight, where);
  require_floating(x, where, "x");
  require(
      x.ndim() >= 1 &&
          int64_t(x.shape(-1)) * weight.bits ==
              int64_t(weight.codes.shape(1)) * 32,
      where,
      "x " + describe(x) + " and the codes " + describe(weight.codes) +
          " do not share an input width");
  require_bias(bias, weight.codes.shape(0), where);
}

void check_residual(
    const mx::array& residual,
    const mx::array& x,
    int out,
    const char* where) {
  require_floating(residual, where, "residual");
  auto shape = x.shape();
  shape.back() = out;
  require(
      residual.shape() == shape,
      where,
      "the residual " + describe(residual) + " does not have the shape of " +
          std::to_string(out) + " outputs of x " + describe(x));
}

}  // namespace pennyweight::ops
