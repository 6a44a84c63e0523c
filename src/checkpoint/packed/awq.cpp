// AWQ's pack, gemm: w = (code - zero) * scale. qweight [in, out * bits / 32]
// and qzeros [groups, out * bits / 32] hold codes along `out`, those of a word
// in turn from its two halves: column 0 at place 0, 1 at the middle, 2 at place
// 1. mlx-lm (mlx_lm/utils.py, _transform_awq_weights) makes MLX's affine form
// of them, whose bias is rounded by itself; here the product is rounded once.

#include "checkpoint/packed/group_words.h"
#include "core/error.h"
#include "core/text.h"

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
    const auto scales = read_scales(form_, reader(parts, 1), first, count);
    std::vector<float> zeros(
        size_t(form_.groups * count), float(1 << (form_.bits - 1)));
    for (int64_t group = 0; !form_.centered && group < form_.groups; ++group) {
      read_codes(
          parts[2].data<uint32_t>() + group * words,
          first,
          count,
          1,
          zeros.data() + group * count);
    }
    expand_by_tiles(
        {form_, count, scales, zeros, nullptr},
        [&](int64_t begin, int64_t end, float* tile) {
          for (int64_t at = begin; at < end; ++at, ++tile) {
            read_codes(codes + at * words, first, count, kTileColumns, tile);
          }
        },
        out);
  }

 private:
  // Codes first .. first + count - 1 of a row of words, `stride` apart.
  void read_codes(
      const uint32_t* words,
      int64_t first,
      int64_t count,
      int64_t stride,
      float* out) const {
    const int in_word = 32 / form_.bits;
    const uint32_t mask = (1u << form_.bits) - 1;
    int64_t at = first % in_word;
    const uint32_t* word = words + first / in_word;
    for (int64_t i = 0; i < count; ++i, out += stride) {
      const int64_t place = at / 2 + (at & 1) * (in_word / 2);
      *out = float(int(*word >> (place * form_.bits) & mask));
      if (++at == in_word) {
        at = 0;
        ++word;
      }
    }
  }

  GroupWords form_;
};

}  // namespace

void add_awq(PackedParts& parts) {
  const auto settings = parts.settings();
  const auto version = lower_case(
      settings.string_or("version", settings.string_or("format", "gemm")));
  if (version != "gemm" && version != "exllama") {
    parts.unknown("version \"" + one_line(version, 40) + "\"");
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
