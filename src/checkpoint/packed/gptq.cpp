// GPTQ's pack: w = (code - zero) * scale. qweight [in * bits / 32, out] holds
// codes along `in` as one stream of bits, the first in the lowest; qzeros
// [groups, out * bits / 32] likewise along `out`. Format v1, which AutoGPTQ
// wrote, stores each zero less one; gptq_v2 as it is. The product is exact in
// float32 for scales of 16 bits.

#include "checkpoint/packed/group_words.h"
#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

namespace {

// Code `at` of a stream of bits in words that stand `stride` apart.
uint32_t bits_at(const uint32_t* words, int64_t stride, int64_t at, int bits) {
  const int64_t bit = at * bits;
  const int shift = int(bit % 32);
  const uint32_t* word = words + bit / 32 * stride;
  uint32_t code = *word >> shift;
  if (shift + bits > 32) {
    code |= word[stride] << (32 - shift);
  }
  return code & ((1u << bits) - 1);
}

class GptqTensor : public PackedTensor {
 public:
  GptqTensor(
      const std::string& name,
      const GroupWords& form,
      bool zeros_less_one,
      std::vector<TensorInfo> parts)
      : PackedTensor(
            {name, form.shape(), expanded_type(parts[1])},
            parts,
            describe(form)),
        form_(form),
        added_(zeros_less_one ? 1 : 0) {}

 protected:
  void expand_rows(
      const std::vector<mx::array>& parts,
      int64_t first,
      int64_t count,
      float* out) const override {
    const auto* codes = parts[0].data<uint32_t>() + first;
    const auto scales = read_scales(form_, reader(parts, 1), first, count);
    const auto zeros = read_zeros(parts[2], first, count);
    const auto* order = form_.ordered ? parts[3].data<int32_t>() : nullptr;
    expand_by_tiles(
        {form_, count, scales, zeros, order},
        [&](int64_t begin, int64_t end, float* tile) {
          if (32 % form_.bits == 0) {
            read_words(codes, begin, end, count, tile);
          } else {
            read_stream(codes, begin, end, count, tile);
          }
        },
        out);
  }

 private:
  // A tile begins with a word.
  void read_words(
      const uint32_t* codes,
      int64_t begin,
      int64_t end,
      int64_t count,
      float* tile) const {
    const int in_word = 32 / form_.bits;
    const uint32_t mask = (1u << form_.bits) - 1;
    for (int64_t at = begin; at < end; at += in_word, tile += in_word) {
      const uint32_t* words = codes + at / in_word * form_.out;
      for (int64_t i = 0; i < count; ++i) {
        uint32_t word = words[i];
        float* to = tile + i * kTileColumns;
        for (int place = 0; place < in_word; ++place, word >>= form_.bits) {
          to[place] = float(int(word & mask));
        }
      }
    }
  }
  void read_stream(
      const uint32_t* codes,
      int64_t begin,
      int64_t end,
      int64_t count,
      float* tile) const {
    for (int64_t at = begin; at < end; ++at, ++tile) {
      for (int64_t i = 0; i < count; ++i) {
        tile[i * kTileColumns] =
            float(int(bits_at(codes + i, form_.out, at, form_.bits)));
      }
    }
  }
  std::vector<float>
  read_zeros(const mx::array& stored, int64_t first, int64_t count) const {
    const uint32_t mask = (1u << form_.bits) - 1;
    const int64_t words = stored.shape(1);
    std::vector<float> zeros(size_t(form_.groups * count));
    for (int64_t group = 0; group < form_.groups; ++group) {
      const auto* from = stored.data<uint32_t>() + group * words;
      for (int64_t i = 0; i < count; ++i) {
        const auto zero = bits_at(from, 1, first + i, form_.bits) + added_;
        zeros[size_t(group * count + i)] = float(zero & mask);
      }
    }
    return zeros;
  }

  GroupWords form_;
  uint32_t added_;
};

// A tensor of at most so many bytes is preferred to see how zeros are stored:
// the stub of a streamed file has it.
constexpr uint64_t kFewBytes = 64 << 10;

// The largest qzeros of at most kFewBytes, or else the smallest of all.
const TensorInfo* zeros_to_look_at(const PackedParts& parts) {
  const TensorInfo* best = nullptr;
  for (const auto& base : parts.named(".qzeros")) {
    const auto* info = parts.find(base + ".qzeros");
    if (!best) {
      best = info;
      continue;
    }
    const bool best_is_few = best->bytes <= kFewBytes;
    const bool better = info->bytes <= kFewBytes
        ? !best_is_few || info->bytes > best->bytes
        : !best_is_few && info->bytes <= best->bytes;
    if (better) {
      best = info;
    }
  }
  return best;
}

// The zero that all these words hold; -1 where they hold different ones.
int64_t only_zero(const PackedParts& parts, const TensorInfo& zeros, int bits) {
  const auto values = parts.integers(zeros);
  const int64_t columns = zeros.shape.back();
  const uint32_t mask = (1u << bits) - 1;
  std::vector<uint32_t> words(values.begin(), values.end());
  const uint32_t first = words.empty() ? 0 : words[0] & mask;
  for (size_t row = 0; row < words.size(); row += size_t(columns)) {
    for (int64_t at = 0; at < columns * 32 / bits; ++at) {
      if (bits_at(words.data() + row, 1, at, bits) != first) {
        return -1;
      }
    }
  }
  return first;
}

// Symmetric codes have the middle of their range as zero. Packs were published
// whose entry says v1 though zeros are stored as they are, and the other way
// round. Where all zeros are the middle by one of the two ways, it is taken.
bool zeros_are_less_one(PackedParts& parts, bool by_entry) {
  const auto* zeros = zeros_to_look_at(parts);
  if (!zeros || !parts.settings().boolean_or("sym", true)) {
    return by_entry;
  }
  const auto base = zeros->name.substr(0, zeros->name.rfind(".qzeros"));
  if (!parts.find(base + ".qweight")) {
    return by_entry;
  }
  const int bits = read_group_words(parts, base, true).bits;
  const int64_t zero = only_zero(parts, *zeros, bits);
  const int64_t middle = int64_t{1} << (bits - 1);
  if (zero != middle && zero != middle - 1) {
    return by_entry;
  }
  const bool less_one = zero == middle - 1;
  if (less_one != by_entry) {
    parts.note(
        "all zeros of " + base + " are stored as " + std::to_string(zero) +
        ", the middle of the codes' range" + (less_one ? " less one" : "") +
        ", and are read so, though the entry " +
        (by_entry ? "stands for zeros less one" : "says otherwise"));
  }
  return less_one;
}

// GPTQModel has named the key both ways.
bool stores_zeros_less_one(const PackedParts& parts) {
  const auto settings = parts.settings();
  const auto format = lower_case(settings.string_or(
      "checkpoint_format", settings.string_or("format", "gptq")));
  if (format != "gptq" && format != "gptq_v2") {
    parts.unknown("checkpoint_format \"" + one_line(format, 40) + "\"");
  }
  return format == "gptq";
}

}  // namespace

void add_gptq(PackedParts& parts) {
  add_gptq(parts, stores_zeros_less_one(parts));
}

void add_gptq(PackedParts& parts, bool zeros_less_one) {
  const bool less_one = zeros_are_less_one(parts, zeros_less_one);
  for (const auto& base : parts.named(".qweight")) {
    const auto form = read_group_words(parts, base, true);
    parts.add(std::make_unique<GptqTensor>(
        base + ".weight", form, less_one, group_parts(parts, base)));
  }
}

}  // namespace pennyweight
