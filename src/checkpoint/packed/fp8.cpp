// FP8: w = code * scale of its block. A code of four significant bits times a
// scale in float32 is rounded once by float32 and once by the result's type, as
// in mlx-lm (mlx_lm/models/deepseek_v3.py, sanitize) and transformers
// (integrations/finegrained_fp8.py).

#include "checkpoint/packed/scheme.h"

namespace pennyweight {

namespace {

class Fp8Tensor : public PackedTensor {
 public:
  Fp8Tensor(
      const TensorInfo& codes,
      const TensorInfo& scales,
      const ScaleBlock& block,
      mx::Dtype dtype)
      : PackedTensor(
            {codes.name, codes.shape, dtype},
            {codes, scales},
            "FP8 " + describe_block(block)),
        grid_(codes.shape, block),
        single_(scales.bytes == mx::size_of(scales.dtype)) {}

 protected:
  void expand_rows(
      const std::vector<mx::array>& parts,
      int64_t first,
      int64_t count,
      float* out) const override {
    const auto* codes = parts[0].data<uint8_t>() + first * columns();
    const auto scales = reader(parts, 1);
    const float* values = e4m3_values();
    for (int64_t i = 0; i < count; ++i, out += columns(), codes += columns()) {
      for (int64_t column = 0; column < columns(); ++column) {
        out[column] = values[codes[column]];
      }
      grid_.multiply(single_ ? 0 : first + i, scales, out);
    }
  }

 private:
  ScaleGrid grid_;
  bool single_;  // one scale for all of a stack
};

bool has_size(const mx::Shape& shape, size_t size) {
  size_t product = 1;
  for (int extent : shape) {
    product *= static_cast<size_t>(extent);
  }
  return product == size;
}

// The first block that fits the shape of the scales. Where none does, a corrupt
// Error has the shape that the first one asks for.
ScaleBlock block_of(
    const PackedParts& parts,
    const TensorInfo& codes,
    const TensorInfo& scales,
    const std::vector<ScaleBlock>& blocks) {
  const size_t stack =
      codes.shape.size() > 2 ? static_cast<size_t>(codes.shape[0]) : 1;
  auto shape = scales.shape;
  if (shape.size() == 4 && shape[1] == 1 && shape[3] == 1) {
    shape = {shape[0], shape[2]};  // ModelOpt's [blocks, 1, blocks, 1]
  }
  for (const auto& block : blocks) {
    if (scales_shape(codes.shape, block) == shape) {
      return block;
    }
  }
  for (const auto& block : blocks) {
    // [rows] and [1] are written for [rows, 1] and [1, 1].
    const bool by_rows = block.columns == 0 && shape.size() < 2 &&
        has_size(scales_shape(codes.shape, block),
                 shape.empty() ? 1 : size_t(shape[0]));
    if (by_rows) {
      return block;
    }
  }
  const ScaleBlock whole{.rows = 0};
  if (has_size(scales.shape, 1) ||
      (has_size(scales.shape, stack) && scales.shape[0] == codes.shape[0])) {
    return whole;
  }
  parts.require_shape(scales, scales_shape(codes.shape, blocks.front()));
  return whole;
}

}  // namespace

void add_fp8(
    PackedParts& parts,
    const std::string& scales_suffix,
    const std::vector<ScaleBlock>& blocks,
    bool always_bfloat16) {
  const auto after = scales_suffix.find("_scale");
  const auto codes_suffix = scales_suffix.substr(0, after);
  for (const auto& base : parts.named(scales_suffix)) {
    const auto* scales = parts.find(base + scales_suffix);
    const auto& codes = parts.require(base + codes_suffix, *scales);
    if (codes.dtype != mx::uint8) {
      continue;  // other functions read it, or else it is refused as left over
    }
    parts.require_matrix(codes);
    if (!FloatReader::can_read(*scales)) {
      parts.wrong(*scales, "is not of a type for scales");
    }
    if (blocks.empty()) {
      parts.wrong(codes, "is FP8, of which the entry says nothing");
    }
    parts.add(std::make_unique<Fp8Tensor>(
        codes,
        *scales,
        block_of(parts, codes, *scales, blocks),
        always_bfloat16 ? mx::bfloat16 : expanded_type(*scales)));
  }
}

}  // namespace pennyweight
