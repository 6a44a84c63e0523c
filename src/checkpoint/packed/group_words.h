#pragma once

#include <string>

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

/// "int4 in groups of 128 by activation order".
std::string describe(const GroupWords& form);

/// Every matrix with a .qweight.
void add_gptq(PackedParts& parts);
void add_awq(PackedParts& parts);

}  // namespace pennyweight
