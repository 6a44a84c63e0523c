#include <algorithm>

#include "kernels/access.h"
#include "kernels/dispatch.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

// A tile of logits, its rows of the weight and of x together stay within a
// second-level cache of 2 MB at widths of models of up to some billions of
// parameters' small end, and are still large enough a product beyond.
constexpr int64_t kTileRows = 256;
constexpr int64_t kTileColumns = 512;

struct Buffers {
  Scratch logits, reference;
};

ConstMatrix tile_of(
    const ScoreSide& side,
    int64_t row,
    int64_t column,
    int64_t rows,
    int64_t columns,
    Scratch& scratch) {
  const Matrix out{scratch.get<float>(rows * columns), DType::f32, columns};
  ConstVector bias = side.bias;
  if (bias.data) {
    bias.data = advance(bias.data, bias.type, column);
  }
  matmul(
      {rows,
       columns,
       side.k,
       from_row(side.x, row),
       from_row(side.weight, column),
       bias,
       {},
       out,
       false});
  return as_const(out);
}

}  // namespace

void score_matmul(const ScoreMatmulArgs& args) {
  // Blocks of rows are independent; with few of them for many threads they
  // get smaller.
  const int64_t wanted = 2 * thread_count();
  int64_t tile_rows = kTileRows;
  while (tile_rows > 32 && args.rows < wanted * tile_rows) {
    tile_rows /= 2;
  }
  const int64_t blocks = (args.rows + tile_rows - 1) / tile_rows;
  parallel_tasks(blocks, [&](int64_t block) {
    thread_local Buffers buffers;
    const int64_t row = block * tile_rows;
    const int64_t rows = std::min(tile_rows, args.rows - row);
    for (int64_t j = 0; j < args.columns; j += kTileColumns) {
      const int64_t n = std::min(kTileColumns, args.columns - j);
      ScoreArgs tile{
          .rows = rows,
          .columns = n,
          .first = args.first + j,
          .logits = tile_of(args.logits, row, j, rows, n, buffers.logits),
          .targets = args.targets + row,
          .state = args.state + row * args.state_stride,
          .state_stride = args.state_stride};
      if (args.reference.x.data) {
        tile.reference =
            tile_of(args.reference, row, j, rows, n, buffers.reference);
      }
      score_update(tile);
    }
  });
}

}  // namespace pennyweight::kernels
