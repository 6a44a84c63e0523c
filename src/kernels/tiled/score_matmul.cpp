#include <cmath>

#include "kernels/access.h"
#include "kernels/tiled/head_tile.h"

namespace pennyweight::kernels {

namespace {

struct ScoreBuffers {
  Scratch logits, reference;
};

}  // namespace

ConstMatrix head_tile(
    const HeadSide& side,
    int64_t row,
    int64_t column,
    int64_t rows,
    int64_t columns,
    Scratch& scratch,
    float scale) {
  float* values = scratch.get<float>(rows * columns);
  ConstVector bias = side.bias;
  if (bias.data) {
    bias.data = advance(bias.data, bias.type, column);
  }
  kernels::matmul(
      {.m = rows,
       .n = columns,
       .k = side.k,
       .x = from_row(side.x, row),
       .weight = from_row(side.weight, column),
       .bias = bias,
       .out = {values, DType::f32, columns}});
  for (int64_t i = 0; side.cap > 0 && i < rows * columns; ++i) {
    values[i] = side.cap * std::tanh(values[i] / side.cap);
  }
  for (int64_t i = 0; scale != 1 && i < rows * columns; ++i) {
    values[i] *= scale;
  }
  return {values, DType::f32, columns};
}

void score_matmul(const ScoreMatmulArgs& args) {
  each_row_block(args.rows, [&](int64_t row, int64_t rows) {
    thread_local ScoreBuffers buffers;
    each_column_tile(args.columns, [&](int64_t j, int64_t n) {
      const auto tile_of = [&](const HeadSide& side, Scratch& scratch) {
        return head_tile(side, row, j, rows, n, scratch, args.scale);
      };
      ScoreArgs tile{
          .rows = rows,
          .columns = n,
          .first = args.first + j,
          .logits = tile_of(args.logits, buffers.logits),
          .targets = args.targets + row,
          .state = args.state + row * args.state_stride,
          .state_stride = args.state_stride};
      if (args.reference.x.data) {
        tile.reference = tile_of(args.reference, buffers.reference);
      }
      kernels::score_update(tile);
    });
  });
}

}  // namespace pennyweight::kernels
