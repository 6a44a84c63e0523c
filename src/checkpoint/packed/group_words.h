#pragma once

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/packed/packed_parts.h"

namespace pennyweight {

/// The form of a matrix [out, in] as GPTQ and AWQ pack it: qweight, qzeros
/// [groups, words], scales [groups, out], and perhaps g_idx [in].
struct GroupWords {
  int bits = 0;
  int in = 0;
  int out = 0;
  int groups = 0;
  int group_size = 0;
  bool ordered = false;   // g_idx gives each column's group; it is part 3
  bool centered = false;  // without qzeros each zero is half the codes' range

  mx::Shape shape() const {
    return {out, in};
  }
};

/// Reads the form of `base`'s tensors from their shapes. corrupt Error where
/// the entry's bits or group size contradict them. With `words_along_in` a word
/// of qweight holds codes of one output along `in`; otherwise codes of one
/// input along `out`.
GroupWords read_group_words(
    PackedParts& parts,
    const std::string& base,
    bool words_along_in);

/// The tensors that a matrix is stored as: qweight, scales, and where there are
/// such, qzeros and g_idx.
std::vector<TensorInfo> group_parts(
    const PackedParts& parts,
    const std::string& base);

/// Rows of a matrix that are to be expanded, `count` of them.
struct GroupedRows {
  const GroupWords& form;
  int64_t count;
  const std::vector<float>& scales;  // [groups, count]
  const std::vector<float>& zeros;   // [groups, count]
  const int32_t* order;              // the group of each column, or null
};
/// How many columns expand_by_tiles() takes at a time.
inline constexpr int64_t kTileColumns = 64;
/// Writes (code - zero) * scale to out [count, in]. `codes` gives columns
/// begin .. end - 1 of the rows in tile [count, kTileColumns]. The packs go by
/// columns, and rows of `out` that lie a power of two apart share a few lines
/// of the cache: written straight to their places, codes would evict one
/// another.
void expand_by_tiles(
    const GroupedRows& rows,
    const std::function<void(int64_t begin, int64_t end, float* tile)>& codes,
    float* out);

/// The scales of rows first .. first + count - 1: [groups, count], taken from
/// the stored [groups, out].
std::vector<float> read_scales(
    const GroupWords& form,
    const FloatReader& stored,
    int64_t first,
    int64_t count);

/// The form in words: "int4 in groups of 128 by activation order".
std::string describe(const GroupWords& form);

/// Add every matrix with a .qweight. Whether GPTQ's zeros are stored less one
/// is what the entry says, or the caller; unless all zeros are in the middle of
/// their range by the other way, which is then taken, with a note.
void add_gptq(PackedParts& parts);
void add_gptq(PackedParts& parts, bool zeros_less_one);
void add_awq(PackedParts& parts);

}  // namespace pennyweight
