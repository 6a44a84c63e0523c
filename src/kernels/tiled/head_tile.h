#pragma once

#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

/// The size of a tile of logits. With its rows of weight and x it fits into a
/// second-level cache of 2 MB for hidden sizes of up to about 1,000, and its
/// product is large enough to be fast for any.
inline constexpr int64_t kHeadTileRows = 256;
inline constexpr int64_t kHeadTileColumns = 512;

/// Makes the logits float32 [rows, columns] of a head from its row `row` and
/// its column `column` on, capped and then multiplied by `scale`, in `scratch`.
ConstMatrix head_tile(
    const HeadSide& side,
    int64_t row,
    int64_t column,
    int64_t rows,
    int64_t columns,
    Scratch& scratch,
    float scale = 1);

/// Calls f(row, rows) for blocks of all rows, on all threads. Where there are
/// few rows the blocks are smaller, so that several threads have some.
template <class F>
void each_row_block(int64_t rows, F&& f) {
  constexpr int64_t kWanted = 6;
  int64_t step = kHeadTileRows;
  while (step > kHeadTileRows / 2 && rows < kWanted * step) {
    step /= 2;
  }
  parallel_tasks((rows + step - 1) / step, [&](int64_t block) {
    const int64_t row = block * step;
    f(row, std::min(step, rows - row));
  });
}

/// Calls f(column, columns) for tiles of all columns, in order.
template <class F>
void each_column_tile(int64_t columns, F&& f) {
  for (int64_t j = 0; j < columns; j += kHeadTileColumns) {
    f(j, std::min(kHeadTileColumns, columns - j));
  }
}

}  // namespace pennyweight::kernels
