#include "ops/packed_view.h"

namespace pennyweight::ops {

PackedFormat format_of(const QuantizedWeight& weight) {
  const auto mode = weight.mode == "mxfp4" ? kernels::QuantMode::mxfp4
      : weight.mode == "mxfp8"             ? kernels::QuantMode::mxfp8
      : weight.mode == "nvfp4"             ? kernels::QuantMode::nvfp4
                                           : kernels::QuantMode::affine;
  return {mode, weight.bits, weight.group_size};
}

std::string mode_name(kernels::QuantMode mode) {
  switch (mode) {
    case kernels::QuantMode::mxfp4:
      return "mxfp4";
    case kernels::QuantMode::mxfp8:
      return "mxfp8";
    case kernels::QuantMode::nvfp4:
      return "nvfp4";
    default:
      return "affine";
  }
}

void append_weight(
    std::vector<mx::array>& inputs,
    const QuantizedWeight& weight) {
  inputs.push_back(weight.codes);
  inputs.push_back(weight.scales);
  if (weight.biases) {
    inputs.push_back(*weight.biases);
  }
}

kernels::QuantizedMatrix packed_view(
    const PackedFormat& format,
    const mx::array* first) {
  kernels::QuantizedMatrix view{
      .mode = format.mode,
      .bits = format.bits,
      .group = format.group,
      .rows = first->shape(0),
      .columns = int64_t(first->shape(1)) * 32 / format.bits,
      .codes = first->data<void>(),
      .scales = first[1].data<void>()};
  if (format.mode == kernels::QuantMode::affine) {
    view.scale_type = kernel_type(first[1].dtype());
    view.biases = first[2].data<void>();
  }
  return view;
}

}  // namespace pennyweight::ops
