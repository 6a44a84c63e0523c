#include "checkpoint/packed/group_words.h"

#include <algorithm>

namespace pennyweight {

namespace {

void require_words(const PackedParts& parts, const TensorInfo& info) {
  if ((info.dtype != mx::int32 && info.dtype != mx::uint32) ||
      info.shape.size() != 2) {
    parts.wrong(info, "does not hold rows of words");
  }
  parts.require_matrix(info, 16);  // of two bits
}

// Checks the form against the entry, unless that has settings by matrix.
void require_entry(
    const PackedParts& parts,
    const TensorInfo& codes,
    const GroupWords& form) {
  const auto settings = parts.settings();
  for (const char* key : {"dynamic", "extra_config"}) {
    if (const Json* more = settings.find(key); more && !more->empty()) {
      return;  // some matrices have settings of their own
    }
  }
  const auto bits = settings.integer_or(
      "bits", settings.integer_or("w_bit", form.bits, 1, 32), 1, 32);
  if (bits != form.bits) {
    parts.wrong(
        codes,
        "is of " + std::to_string(form.bits) + " bits by its shape, and of " +
            std::to_string(bits) + " by the entry");
  }
  const auto size = settings.integer_or(
      "group_size",
      settings.integer_or("q_group_size", form.group_size, -1, 1 << 30),
      -1,
      1 << 30);
  if (size != form.group_size && !(size <= 0 && form.groups == 1)) {
    parts.wrong(
        codes,
        "is in groups of " + std::to_string(form.group_size) +
            " by its shapes, and of " + std::to_string(size) + " by the entry");
  }
}

// The tensor whose rows tell how many bits a code has: qzeros, or qweight where
// AWQ has none. Then each zero is half of the codes' range, as in mlx-lm.
const TensorInfo& zeros_of(
    const PackedParts& parts,
    const std::string& base,
    const TensorInfo& codes,
    bool words_along_in,
    GroupWords& form) {
  const bool named = parts.settings().boolean_or("zero_point", true);
  if (!words_along_in && !named && !parts.find(base + ".qzeros")) {
    form.centered = true;
    return codes;
  }
  const auto& zeros = parts.require(base + ".qzeros", codes);
  require_words(parts, zeros);
  parts.require_shape(zeros, {form.groups, zeros.shape[1]});
  return zeros;
}

void read_order(PackedParts& parts, const std::string& base, GroupWords& form) {
  const auto* order = parts.find(base + ".g_idx");
  if (!order) {
    return;
  }
  parts.require_shape(*order, {form.in});
  const auto values = parts.integers(*order);
  bool in_turn = true;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= form.groups) {
      parts.wrong(
          *order,
          "names a group " + std::to_string(values[i]) + " of " +
              std::to_string(form.groups));
    }
    in_turn = in_turn && values[i] == int64_t(i) / form.group_size;
  }
  if (!in_turn && order->dtype != mx::int32) {
    parts.wrong(*order, "is not of type int32");
  }
  form.ordered = !in_turn;
}

}  // namespace

std::vector<TensorInfo> group_parts(
    const PackedParts& parts,
    const std::string& base) {
  std::vector<TensorInfo> stored{
      *parts.find(base + ".qweight"), *parts.find(base + ".scales")};
  for (const char* suffix : {".qzeros", ".g_idx"}) {
    if (const auto* info = parts.find(base + suffix)) {
      stored.push_back(*info);
    }
  }
  return stored;
}

GroupWords read_group_words(
    PackedParts& parts,
    const std::string& base,
    bool words_along_in) {
  const auto& codes = *parts.find(base + ".qweight");
  const auto& scales = parts.require_scales(base + ".scales", codes);
  require_words(parts, codes);
  if (scales.shape.size() != 2 || scales.shape[0] < 1 || scales.shape[1] < 1) {
    parts.wrong(scales, "is no matrix of scales");
  }
  GroupWords form;
  form.groups = scales.shape[0];
  form.out = scales.shape[1];
  const auto& zeros = zeros_of(parts, base, codes, words_along_in, form);
  const int64_t bits = int64_t{zeros.shape[1]} * 32;
  form.bits = int(bits / form.out);
  if (bits % form.out != 0 || form.bits < 2 || form.bits > 8) {
    parts.wrong(
        zeros,
        "has shape " + bracketed(zeros.shape) + ", which packs no rows of " +
            std::to_string(form.out));
  }
  const int64_t words = int64_t{codes.shape[words_along_in ? 0 : 1]} * 32;
  if (words / form.bits >= int64_t{1} << 30) {
    parts.wrong(codes, "has more rows than any matrix");
  }
  form.in = words_along_in ? int(words / form.bits) : codes.shape[0];
  parts.require_shape(
      codes,
      words_along_in
          ? mx::Shape{int(int64_t{form.in} * form.bits / 32), form.out}
          : mx::Shape{form.in, zeros.shape[1]});
  form.group_size = int(divide_up(form.in, form.groups));
  const Json* size = parts.settings().find("group_size");
  // The last group may be short: then only the entry knows the others' size.
  if (size && size->is_number_integer() && size->get<int64_t>() > 0 &&
      divide_up(form.in, size->get<int64_t>()) == form.groups) {
    form.group_size = int(size->get<int64_t>());
  }
  require_entry(parts, codes, form);
  read_order(parts, base, form);
  return form;
}

std::vector<float> read_scales(
    const GroupWords& form,
    const FloatReader& stored,
    int64_t first,
    int64_t count) {
  std::vector<float> scales(size_t(form.groups * count));
  for (int64_t group = 0; group < form.groups; ++group) {
    for (int64_t i = 0; i < count; ++i) {
      scales[size_t(group * count + i)] =
          stored[size_t(group * form.out + first + i)];
    }
  }
  return scales;
}

void expand_by_tiles(
    const GroupedRows& rows,
    const std::function<void(int64_t begin, int64_t end, float* tile)>& codes,
    float* out) {
  const auto& form = rows.form;
  std::vector<float> tile(size_t(rows.count * kTileColumns));
  for (int64_t begin = 0; begin < form.in; begin += kTileColumns) {
    const int64_t end = std::min<int64_t>(form.in, begin + kTileColumns);
    codes(begin, end, tile.data());
    for (int64_t i = 0; i < rows.count; ++i) {
      const float* from = tile.data() + i * kTileColumns;
      float* to = out + i * form.in + begin;
      for (int64_t column = begin; column < end;) {
        const int64_t group =
            rows.order ? rows.order[column] : column / form.group_size;
        const int64_t stop = rows.order
            ? column + 1
            : std::min<int64_t>(end, (group + 1) * form.group_size);
        const float zero = rows.zeros[size_t(group * rows.count + i)];
        const float scale = rows.scales[size_t(group * rows.count + i)];
        for (; column < stop; ++column) {
          *to++ = (*from++ - zero) * scale;
        }
      }
    }
  }
}

std::string describe(const GroupWords& form) {
  return "int" + std::to_string(form.bits) + " in groups of " +
      std::to_string(form.group_size) +
      (form.ordered ? " by activation order" : "");
}

}  // namespace pennyweight
