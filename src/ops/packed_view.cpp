#include "ops/packed_view.h"

#include <array>

namespace pennyweight::ops {

namespace {

constexpr std::array<const char*, 4> kModeNames{
    "affine",
    "mxfp4",
    "mxfp8",
    "nvfp4"};

}  // namespace

PackedFormat format_of(const QuantizedWeight& weight) {
  size_t mode = kModeNames.size() - 1;
  while (mode > 0 && weight.mode != kModeNames[mode]) {
    --mode;
  }
  return {kernels::QuantMode(mode), weight.bits, weight.group_size};
}

int columns_of(const QuantizedWeight& weight) {
  return int(int64_t(weight.codes.shape(1)) * 32 / weight.bits);
}

void append_weight(Arrays& inputs, const QuantizedWeight& weight) {
  inputs.push_back(weight.codes);
  inputs.push_back(weight.scales);
  if (weight.biases) {
    inputs.push_back(*weight.biases);
  }
}

QuantizedWeight
weight_from(const PackedFormat& format, const Arrays& inputs, size_t first) {
  std::optional<mx::array> biases;
  if (format.arrays() == 3) {
    biases = inputs[first + 2];
  }
  return {
      inputs[first],
      inputs[first + 1],
      biases,
      format.group,
      format.bits,
      kModeNames[size_t(format.mode)]};
}

kernels::QuantizedMatrix
packed_view(const PackedFormat& format, CpuWork& work, size_t first) {
  kernels::QuantizedMatrix view{
      .mode = format.mode,
      .bits = format.bits,
      .group = format.group,
      .rows = work.size(first, 0),
      .columns = int64_t(work.size(first, 1)) * 32 / format.bits,
      .codes = work.vector(first).data,
      .scales = work.vector(first + 1).data};
  if (format.arrays() == 3) {
    view.biases = work.vector(first + 2).data;
    view.scale_type = work.type(first + 1);
  }
  return view;
}

}  // namespace pennyweight::ops
