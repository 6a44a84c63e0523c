// E2M1 in groups, by two scales: w = code * (scale of its group by the scale of
// the whole). nvfp4: groups of 16, scales in E4M3, and one in float32, by which
// compressed-tensors divides and ModelOpt multiplies. mxfp4: groups of 32,
// scales in E8M0, and none of the whole (OCP Microscaling Formats 1.0).

#include "checkpoint/packed/scheme.h"

namespace pennyweight {

namespace {

// The values of E2M1 codes; the negative ones come last, with a zero of their
// own.
constexpr float kValues[] =
    {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0f, -0.5, -1, -1.5, -2, -3, -4, -6};

class Fp4Tensor : public PackedTensor {
 public:
  Fp4Tensor(
      const std::string& name,
      const mx::Shape& shape,
      int group,
      std::vector<TensorInfo> parts,
      bool divides,
      float whole_divisor = 1)
      : PackedTensor(
            {name, shape, mx::bfloat16},
            std::move(parts),
            group == 16 ? "nvfp4" : "mxfp4"),
        group_(group),
        divides_(divides),
        whole_divisor_(whole_divisor) {}

 protected:
  void expand_rows(
      const std::vector<mx::array>& parts,
      int64_t first,
      int64_t count,
      float* out) const override {
    const auto* codes = parts[0].data<uint8_t>() + first * (columns() / 2);
    const auto scales = reader(parts, 1);
    const int64_t groups = columns() / group_;
    for (int64_t i = 0; i < count; ++i) {
      const auto whole = whole_scale(parts, first + i);
      for (int64_t group = 0; group < groups; ++group) {
        float scale = scales[size_t((first + i) * groups + group)];
        scale = divides_ ? scale / whole : scale * whole;
        for (int at = 0; at < group_ / 2; ++at, ++codes) {
          *out++ = kValues[*codes & 15] * scale;
          *out++ = kValues[*codes >> 4] * scale;
        }
      }
    }
  }

 private:
  float whole_scale(const std::vector<mx::array>& parts, int64_t row) const {
    if (parts.size() < 3) {
      return 1;
    }
    const auto scales = reader(parts, 2);
    // A stack may have one for each matrix.
    const int64_t rows = info().shape[info().shape.size() - 2];
    return scales[parts[2].size() > 1 ? size_t(row / rows) : 0] /
        whole_divisor_;
  }

  int group_;
  bool divides_;
  float whole_divisor_;
};

// The largest code times the largest scale: MLX's global scale is the magnitude
// that this product stands for.
constexpr float kLargest = 6 * 448;

}  // namespace

void add_fp4(
    PackedParts& parts,
    const std::string& codes_suffix,
    const std::string& whole,
    bool whole_divides) {
  for (const auto& base : parts.named(codes_suffix)) {
    const auto& codes = *parts.find(base + codes_suffix);
    if (codes.dtype != mx::uint8 || codes.byte_type != ByteType::plain) {
      continue;
    }
    parts.require_matrix(codes, 2);
    const auto& scales = parts.require(base + ".weight_scale", codes);
    const bool by_two = scales.byte_type == ByteType::e4m3;
    if (scales.dtype != mx::uint8) {
      parts.wrong(scales, "is not of a type for FP4's scales");
    }
    const int group = by_two ? 16 : 32;
    auto shape = codes.shape;
    shape.back() *= 2;
    if (shape.back() % group != 0) {
      parts.wrong(
          codes,
          "has rows that groups of " + std::to_string(group) +
              " do not divide");
    }
    parts.require_shape(scales, scales_shape(shape, {1, group}));
    std::vector<TensorInfo> stored{codes, scales};
    if (by_two) {
      const auto& one = parts.require(base + whole, codes);
      if (one.dtype != mx::float32) {
        parts.wrong(one, "is not a float32 scale");
      }
      const bool stacked =
          shape.size() > 2 && !one.shape.empty() && one.shape[0] == shape[0];
      parts.require_size(one, stacked ? mx::Shape{shape[0]} : mx::Shape{});
      stored.push_back(one);
    }
    parts.add(std::make_unique<Fp4Tensor>(
        base + ".weight", shape, group, std::move(stored), whole_divides));
  }
}

void add_global_fp4(PackedParts& parts) {
  for (const auto& base : parts.named(".global_scale")) {
    const auto& whole = *parts.find(base + ".global_scale");
    const auto& codes = parts.require(base + ".weight", whole);
    auto scales = parts.require(base + ".scales", whole);
    if (codes.dtype != mx::uint32 || scales.dtype != mx::uint8) {
      parts.wrong(whole, "stands beside no nvfp4 matrix");
    }
    parts.require_matrix(codes, 8);
    auto shape = codes.shape;
    shape.back() *= 8;
    if (whole.dtype != mx::float32 || shape.back() % 16 != 0) {
      parts.wrong(whole, "is of no nvfp4 matrix");
    }
    parts.require_shape(scales, scales_shape(shape, {1, 16}));
    parts.require_size(
        whole, shape.size() > 2 ? mx::Shape{shape[0]} : mx::Shape{});
    scales.byte_type = ByteType::e4m3;
    parts.add(std::make_unique<Fp4Tensor>(
        base + ".weight",
        shape,
        16,
        std::vector<TensorInfo>{codes, scales, whole},
        false,
        kLargest));
  }
}

}  // namespace pennyweight
