// Integers with scales by rows or groups: w = (code - zero) * scale, an exact
// product in float32 of any scale with 16 bits. Codes and zeros are signed; in
// words they stand 2^(bits-1) higher, the first in the lowest bits, as many as
// fit whole. Format: compressed-tensors, pack-quantized and int-quantized.

#include <algorithm>

#include "checkpoint/packed/scheme.h"

namespace pennyweight {

namespace {

struct IntegerForm {
  mx::Shape shape;
  PackedScheme scheme;
  bool in_words = false;
  int zeros = 0;  // the number of the part with zero points; 0: none
  bool zeros_in_words = false;
  bool zeros_are_floats = false;
  int order = 0;  // the number of the part with each column's group; 0: none
};

std::string describe(const IntegerForm& form) {
  return "int" + std::to_string(form.scheme.bits) + " " +
      describe_block(form.scheme.block) +
      (form.zeros > 0 ? " with zero points" : "") +
      (form.order > 0 ? " by activation order" : "");
}

class IntegerTensor : public PackedTensor {
 public:
  IntegerTensor(
      const std::string& name,
      IntegerForm form,
      std::vector<TensorInfo> parts,
      mx::Dtype dtype)
      : PackedTensor(
            {name, form.shape, dtype},
            std::move(parts),
            describe(form)),
        form_(std::move(form)),
        grid_(form_.shape, form_.scheme.block),
        groups_(scales_shape(form_.shape, form_.scheme.block).back()) {}

 protected:
  void expand_rows(
      const std::vector<mx::array>& parts,
      int64_t first,
      int64_t count,
      float* out) const override {
    const auto stored = reader(parts, 1);
    const auto* order =
        form_.order > 0 ? parts[size_t(form_.order)].data<int32_t>() : nullptr;
    std::vector<float> scales(static_cast<size_t>(groups_));
    std::vector<float> zeros(static_cast<size_t>(groups_), 0.0f);
    for (int64_t row = first; row < first + count; ++row, out += columns()) {
      for (int64_t group = 0; group < groups_; ++group) {
        const auto at = static_cast<size_t>(group);
        scales[at] = stored[grid_.first(row) + at];
        zeros[at] = form_.zeros > 0 ? zero(parts, row, group) : 0.0f;
      }
      read_codes(parts[0], row, out);
      for (int64_t column = 0; column < columns();) {
        const int64_t group =
            order ? order[column] : column / grid_.block_columns();
        const int64_t stop = order
            ? column + 1
            : std::min(columns(), (group + 1) * grid_.block_columns());
        const float zero = zeros[static_cast<size_t>(group)];
        const float scale = scales[static_cast<size_t>(group)];
        for (; column < stop; ++column) {
          out[column] = (out[column] - zero) * scale;
        }
      }
    }
  }

 private:
  void read_codes(const mx::array& codes, int64_t row, float* out) const {
    if (!form_.in_words) {
      const auto* from = codes.data<int8_t>() + row * columns();
      std::copy(from, from + columns(), out);
      return;
    }
    const int64_t words = codes.shape().back();
    const auto* from = codes.data<uint32_t>() + row * words;
    const int bits = form_.scheme.bits;
    const int half = 1 << (bits - 1);
    const uint32_t mask = (1u << bits) - 1;
    for (int64_t column = 0; column < columns(); ++from) {
      const int64_t end = std::min(columns(), column + in_word());
      for (uint32_t word = *from; column < end; ++column, word >>= bits) {
        out[column] = static_cast<float>(int(word & mask) - half);
      }
    }
  }
  // Zeros in words stand by columns: [rows / as many as fit, groups].
  float zero(const std::vector<mx::array>& parts, int64_t row, int64_t group)
      const {
    const auto& zeros = parts[size_t(form_.zeros)];
    if (form_.zeros_are_floats) {
      return reader(parts, size_t(form_.zeros))[size_t(row * groups_ + group)];
    }
    if (!form_.zeros_in_words) {
      return zeros.data<int8_t>()[row * groups_ + group];
    }
    const auto word = zeros.data<uint32_t>()[row / in_word() * groups_ + group];
    return unpacked(word, row % in_word());
  }
  int64_t in_word() const {
    return 32 / form_.scheme.bits;
  }
  float unpacked(uint32_t word, int64_t at) const {
    const int bits = form_.scheme.bits;
    const auto code = word >> (at * bits) & ((1u << bits) - 1);
    return static_cast<float>(int(code) - (1 << (bits - 1)));
  }

  IntegerForm form_;
  ScaleGrid grid_;
  int64_t groups_;
};

bool is_word(const TensorInfo& info) {
  return info.dtype == mx::int32 || info.dtype == mx::uint32;
}

mx::Shape matrix_shape(const PackedParts& parts, const std::string& base) {
  const auto& codes = *parts.find(base + ".weight_packed");
  const auto& shape = parts.require(base + ".weight_shape", codes);
  const auto extents = parts.integers(shape);
  if (!is_word(codes) || codes.shape.size() != 2) {
    parts.wrong(codes, "does not hold rows of words");
  }
  const auto fits = [](int64_t extent) {
    return extent > 0 && extent < (int64_t{1} << 31);
  };
  if (extents.size() != 2 || !std::ranges::all_of(extents, fits)) {
    parts.wrong(shape, "does not hold the two extents of a matrix");
  }
  if (extents[0] != codes.shape[0]) {
    parts.wrong(
        shape,
        "says " + std::to_string(extents[0]) + " rows, where " + codes.name +
            " has " + std::to_string(codes.shape[0]));
  }
  return {int(extents[0]), int(extents[1])};
}

// The first scheme that fits the shapes of codes and scales.
PackedScheme scheme_of(
    const PackedParts& parts,
    const TensorInfo& codes,
    const TensorInfo& scales,
    const mx::Shape& shape,
    bool in_words,
    const std::vector<PackedScheme>& schemes) {
  const PackedScheme* right_width = nullptr;
  for (const auto& scheme : schemes) {
    const int64_t words =
        in_words ? divide_up(shape[1], 32 / scheme.bits) : shape[1];
    if (scheme.floating || words != codes.shape[1] ||
        (!in_words && scheme.bits > 8)) {
      continue;
    }
    right_width = right_width ? right_width : &scheme;
    const auto wanted = scales_shape(shape, scheme.block);
    const bool short_form = scheme.block.columns == 0 &&
        scales.shape.size() < 2 &&
        (scales.shape.empty() ? 1 : scales.shape[0]) == wanted[0];
    if (scales.shape == wanted || short_form) {
      return scheme;
    }
  }
  if (!right_width) {
    parts.wrong(
        codes,
        "has shape " + bracketed(codes.shape) + ", which is no matrix " +
            bracketed(shape) + " by the bits that the entry names");
  }
  parts.require_shape(scales, scales_shape(shape, right_width->block));
  return *right_width;
}

// Adds the part of zero points, if there is one.
void add_zeros(
    const PackedParts& parts,
    const std::string& base,
    IntegerForm& form,
    std::vector<TensorInfo>& stored) {
  const auto* zeros = parts.find(base + ".weight_zero_point");
  if (!zeros && form.scheme.symmetric) {
    return;
  }
  zeros = &parts.require(base + ".weight_zero_point", stored.front());
  auto shape = scales_shape(form.shape, form.scheme.block);
  form.zeros_in_words = is_word(*zeros);
  form.zeros_are_floats = mx::issubdtype(zeros->dtype, mx::floating);
  if (form.zeros_in_words) {
    shape[0] = int(divide_up(shape[0], 32 / form.scheme.bits));
  } else if (zeros->dtype != mx::int8 && !form.zeros_are_floats) {
    parts.wrong(
        *zeros, "does not hold zero points (int32 words, int8 or floats)");
  }
  parts.require_shape(*zeros, shape);
  form.zeros = int(stored.size());
  stored.push_back(*zeros);
}

void add_order(
    PackedParts& parts,
    const std::string& base,
    IntegerForm& form,
    std::vector<TensorInfo>& stored) {
  const auto* order = parts.find(base + ".weight_g_idx");
  if (!order) {
    return;
  }
  const int groups = scales_shape(form.shape, form.scheme.block).back();
  parts.require_shape(*order, {form.shape[1]});
  const auto values = parts.integers(*order);
  if (std::ranges::all_of(values, [](int64_t at) { return at == -1; })) {
    parts.drop(order->name);  // it was never filled
    return;
  }
  if (order->dtype != mx::int32 || std::ranges::any_of(values, [&](int64_t at) {
        return at < 0 || at >= groups;
      })) {
    parts.wrong(
        *order,
        "names groups that the matrix, of " + std::to_string(groups) +
            ", has not");
  }
  form.order = int(stored.size());
  stored.push_back(*order);
}

void add_one(
    PackedParts& parts,
    const std::string& base,
    bool in_words,
    const std::vector<PackedScheme>& schemes) {
  const auto& codes =
      *parts.find(base + (in_words ? ".weight_packed" : ".weight"));
  const auto& scales = parts.require_scales(base + ".weight_scale", codes);
  IntegerForm form;
  form.in_words = in_words;
  form.shape = in_words ? matrix_shape(parts, base) : codes.shape;
  form.scheme = scheme_of(parts, codes, scales, form.shape, in_words, schemes);
  std::vector<TensorInfo> stored{codes, scales};
  add_zeros(parts, base, form, stored);
  add_order(parts, base, form, stored);
  if (in_words) {
    stored.push_back(*parts.find(base + ".weight_shape"));
  }
  parts.add(std::make_unique<IntegerTensor>(
      base + ".weight",
      std::move(form),
      std::move(stored),
      expanded_type(scales)));
}

}  // namespace

void add_integers(
    PackedParts& parts,
    const std::vector<PackedScheme>& schemes) {
  for (const auto& base : parts.named(".weight_packed")) {
    add_one(parts, base, true, schemes);
  }
  for (const auto& base : parts.named(".weight")) {
    const auto& codes = *parts.find(base + ".weight");
    if (codes.dtype == mx::int8 && codes.shape.size() == 2) {
      parts.require_matrix(codes);
      add_one(parts, base, false, schemes);
    }
  }
}

}  // namespace pennyweight
