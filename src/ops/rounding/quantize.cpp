#include "ops/rounding/quantize.h"

#include <mlx/ops.h>

#include "core/error.h"
#include "ops/rounding/cpu_function.h"
#include "ops/rounding/round_to_nearest.h"

namespace pennyweight {

namespace {

[[noreturn]] void invalid(const std::string& what) {
  throw argument_error("quantization", what);
}

// mx::quantize runs affine on one thread, and the fp modes by way of copies
// many times the weight's size.
std::vector<mx::array> quantize_on_cpu(
    const mx::array& weight,
    const QuantSpec& spec) {
  bool affine = spec.mode == "affine";
  auto codes_shape = weight.shape();
  codes_shape.back() =
      static_cast<int>(int64_t{weight.shape(-1)} * spec.bits / 32);
  auto scales_shape = weight.shape();
  scales_shape.back() = weight.shape(-1) / spec.group_size;
  std::vector<mx::Shape> shapes{codes_shape, scales_shape};
  std::vector<mx::Dtype> dtypes{
      mx::uint32, affine ? weight.dtype() : mx::uint8};
  if (affine) {
    shapes.push_back(scales_shape);
    dtypes.push_back(weight.dtype());
  }
  auto body =
      [spec](const std::vector<mx::array>& in, std::vector<mx::array>& out) {
        round_to_nearest(
            in[0].data<void>(),
            in[0].dtype(),
            static_cast<int64_t>(in[0].size()),
            spec,
            {reinterpret_cast<uint8_t*>(out[0].data<uint32_t>()),
             out[1].data<void>(),
             out.size() > 2 ? out[2].data<void>() : nullptr});
      };
  return cpu_arrays("RoundToNearest", {weight}, shapes, dtypes, body);
}

}  // namespace

ops::QuantizedWeight quantize(const mx::array& weight, const QuantSpec& spec) {
  if (weight.ndim() < 2 || !fits(spec, weight.shape(-1))) {
    invalid(
        "rows of " + std::to_string(weight.ndim() ? weight.shape(-1) : 0) +
        " weights don't divide into groups of " +
        std::to_string(spec.group_size));
  }
  if (!mx::issubdtype(weight.dtype(), mx::floating)) {
    invalid("only floating weights can be quantized");
  }
  auto parts = mx::default_device() == mx::Device::gpu
      ? mx::quantize(weight, spec.group_size, spec.bits, spec.mode)
      : quantize_on_cpu(weight, spec);
  ops::QuantizedWeight result{
      parts.at(0),
      parts.at(1),
      std::nullopt,
      spec.group_size,
      spec.bits,
      spec.mode};
  if (parts.size() > 2) {
    result.biases = parts[2];
  }
  return result;
}

}  // namespace pennyweight
