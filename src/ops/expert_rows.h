#pragma once

#include "ops/ops.h"

namespace pennyweight::ops {

/// In what order the rows of tokens that go to several experts each stand. Slot
/// t * chosen + j is token t's j-th choice.
struct RowOrder {
  mx::array slot;   // uint32 [rows]: the slot of each row
  mx::array place;  // uint32 [tokens, chosen]: the row of each slot
};

/// x [tokens, n] to [rows, n]: each row is its slot's token.
mx::array rows_of_slots(const mx::array& x, const RowOrder& order);

/// y [rows, n] to float32 [tokens, n]: each token's rows times scores float32
/// [tokens, chosen], added up.
mx::array
mix_slots(const mx::array& y, const RowOrder& order, const mx::array& scores);

}  // namespace pennyweight::ops
