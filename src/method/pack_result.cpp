#include "method/pack_result.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "ops/rounding/pack.h"

namespace pennyweight {

ops::QuantizedWeight
pack_result(const GptqResult& result, const QuantSpec& spec, mx::Dtype dtype) {
  const int rows = static_cast<int>(result.rows);
  const int columns =
      static_cast<int>(static_cast<int64_t>(result.codes.size()) / result.rows);
  const int groups = columns / spec.group_size;
  auto floats = [&](const std::vector<float>& values) {
    return mx::astype(mx::array(values.data(), {rows, groups}), dtype);
  };
  const bool affine = spec.mode == "affine";
  auto codes = mx::array(result.codes.data(), {rows, columns}, mx::uint8);
  ops::QuantizedWeight weight{
      pack_codes(codes, spec.bits),
      affine ? floats(result.scales)
             : mx::array(result.scale_codes.data(), {rows, groups}, mx::uint8),
      std::nullopt,
      spec.group_size,
      spec.bits,
      spec.mode};
  mx::eval(weight.codes, weight.scales);
  if (affine) {
    weight.biases = floats(result.biases);
    mx::eval(*weight.biases);
  }
  return weight;
}

}  // namespace pennyweight
