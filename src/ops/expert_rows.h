#pragma once

#include "ops/ops.h"

namespace pennyweight::ops {

/// The order of rows that are sorted by expert, where each token goes to
/// several experts. Slot t * chosen + j is token t's j-th choice.
struct RowOrder {
  mx::array slot;   // uint32 [rows]: the slot of each row
  mx::array place;  // uint32 [tokens, chosen]: the row of each slot
};

/// The rows [rows, n] of x [tokens, n]: each is that of its slot's token.
mx::array rows_of_slots(const mx::array& x, const RowOrder& order);

/// For each token the sum of its rows of y [rows, n], times their scores
/// float32 [tokens, chosen]: float32 [tokens, n].
mx::array
mix_slots(const mx::array& y, const RowOrder& order, const mx::array& scores);

}  // namespace pennyweight::ops
