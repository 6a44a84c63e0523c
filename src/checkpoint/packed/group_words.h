#pragma once

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/packed/packed_parts.h"

namespace pennyweight {

/// What GPTQ's and AWQ's packs share: qweight, qzeros [groups, columns of
/// words] and scales [groups, out], and perhaps g_idx [in].
struct GroupWords {
  int bits = 0;
  int in = 0;
  int out = 0;
  int groups = 0;
  int group_size = 0;
  bool ordered = false;   // by g_idx, which then is the fourth part
  bool centered = false;  // no qzeros: each zero is half of the codes' range

  mx::Shape shape() const {
    return {out, in};
  }
};

/// The form of `base`'s tensors, which shapes decide and of which the entry's
/// bits and group size must be true, or a corrupt Error. Words of qweight stand
/// one below the other along `in`, or beside one another along `out`.
GroupWords read_group_words(
    PackedParts& parts,
    const std::string& base,
    bool words_along_in);

/// qweight, scales, and qzeros and g_idx where they are.
std::vector<TensorInfo> group_parts(
    const PackedParts& parts,
    const std::string& base);

/// (code - zero) * scale of packs whose words stand by columns, for rows first
/// .. first + count - 1 to out [count, in]. scales and zeros are [groups,
/// count]; `order`, where there is one, has each column's group. `codes` writes
/// columns begin .. end - 1 of these rows to tile [count, kTileColumns]: rows
/// that stand a power of two apart share a cache's few lines, so that not every
/// code can be written to its place at once.
inline constexpr int64_t kTileColumns = 64;
struct GroupedRows {
  const GroupWords& form;
  int64_t count;
  const std::vector<float>& scales;
  const std::vector<float>& zeros;
  const int32_t* order;
};
void expand_by_tiles(
    const GroupedRows& rows,
    const std::function<void(int64_t begin, int64_t end, float* tile)>& codes,
    float* out);

/// Scales [groups, out] of these rows, [groups, count].
std::vector<float> read_scales(
    const GroupWords& form,
    const FloatReader& stored,
    int64_t first,
    int64_t count);

/// "int4 in groups of 128 by activation order".
std::string describe(const GroupWords& form);

/// Every matrix with a .qweight. Whether zeros are stored less one the entry
/// says, or the caller; all zeros in the middle of their range say it better.
void add_gptq(PackedParts& parts);
void add_gptq(PackedParts& parts, bool zeros_less_one);
void add_awq(PackedParts& parts);

}  // namespace pennyweight
