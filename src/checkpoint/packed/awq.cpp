// AWQ's pack, gemm: w = (code - zero) * scale. qweight [in, out * bits / 32]
// and qzeros [groups, out * bits / 32] hold codes along `out`, those of a word
// in turn from its two halves: column 0 at place 0, 1 at the middle, 2 at place
// 1. mlx-lm (mlx_lm/utils.py, _transform_awq_weights) makes MLX's affine form
// of them, whose bias is rounded by itself; here the product is rounded once.

#include <algorithm>
#include <cctype>

#include "checkpoint/packed/group_words.h"

namespace pennyweight {

namespace {

class AwqTensor : public PackedTensor {
 public:
  AwqTensor(
      const std::string& name,
      const GroupWords& form,
      std::vector<TensorInfo> parts)
      : PackedTensor(
            {name, form.shape(), expanded_type(parts[1])},
            parts,
            describe(form)),
        form_(form) {}

 protected:
  void expand_rows(
      const std::vector<mx::array>& parts,
      int64_t first,
      int64_t count,
      float* out) const override {
    const int64_t words = parts[0].shape(1);
    const auto* codes = parts[0].data<uint32_t>();
    const auto scales = reader(parts, 1);
    const auto* zeros = form_.centered ? nullptr : parts[2].data<uint32_t>();
    for (int64_t column = 0; column < form_.in; ++column) {
      const int64_t group = column / form_.group_size;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = first + i;
        const int zero =
            zeros ? code(zeros + group * words, row) : 1 << (form_.bits - 1);
        const int difference = code(codes + column * words, row) - zero;
        out[i * form_.in + column] =
            float(difference) * scales[size_t(group * form_.out + row)];
      }
    }
  }

 private:
  int code(const uint32_t* words, int64_t row) const {
    const int in_word = 32 / form_.bits;
    const int at = int(row % in_word);
    const int place = at / 2 + at % 2 * (in_word / 2);
    return int(
        words[row / in_word] >> (place * form_.bits) &
        ((1u << form_.bits) - 1));
  }

  GroupWords form_;
};

}  // namespace

void add_awq(PackedParts& parts) {
  auto version = parts.settings().string_or("version", "gemm");
  std::ranges::transform(version, version.begin(), [](unsigned char c) {
    return char(std::tolower(c));
  });
  if (version != "gemm" && version != "exllama") {
    parts.unknown("version \"" + version + "\"");
  }
  for (const auto& base : parts.named(".qweight")) {
    const auto& codes = *parts.find(base + ".qweight");
    const auto form = read_group_words(parts, base, false);
    if (form.bits != 4 && form.bits != 8) {
      parts.wrong(codes, "is of " + std::to_string(form.bits) + " bits");
    }
    if (form.ordered) {
      parts.wrong(*parts.find(base + ".g_idx"), "does not belong to AWQ");
    }
    parts.add(std::make_unique<AwqTensor>(
        base + ".weight", form, group_parts(parts, base)));
  }
}

}  // namespace pennyweight
