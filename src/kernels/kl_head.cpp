#include <algorithm>
#include <cmath>

#include "kernels/access.h"
#include "kernels/distill.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

// What the logits of the rows that share a product may take; with more rows
// the head is read less often.
constexpr int64_t kTileBytes = 64 << 20;
constexpr int64_t kMostRows = 512;
constexpr int64_t kFewestRows = 32;

int64_t tile_rows(int64_t rows, int64_t columns) {
  const int64_t fitting = kTileBytes / (4 * columns) / kFewestRows;
  return std::min(
      rows, std::clamp(fitting * kFewestRows, kFewestRows, kMostRows));
}

void cap_rows(float* logits, int64_t count, float cap) {
  parallel_ranges(count, 1 << 12, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      logits[i] = cap * std::tanh(logits[i] / cap);
    }
  });
}

ConstMatrix logits_of(
    const HeadSide& side,
    int64_t row,
    int64_t rows,
    int64_t columns,
    Scratch& scratch) {
  float* logits = scratch.get<float>(rows * columns);
  matmul(
      {.m = rows,
       .n = columns,
       .k = side.k,
       .x = from_row(side.x, row),
       .weight = side.weight,
       .bias = side.bias,
       .out = {logits, DType::f32, columns}});
  if (side.cap > 0) {
    cap_rows(logits, rows * columns, side.cap);
  }
  return {logits, DType::f32, columns};
}

struct Buffers {
  Scratch logits, reference, slopes;
};

void add_gradients(
    const KlHeadArgs& args,
    int64_t row,
    int64_t rows,
    const ConstMatrix& dlogits) {
  if (args.dx.data) {
    matmul(
        {.m = rows,
         .n = args.head.k,
         .k = args.columns,
         .x = dlogits,
         .weight = args.head.weight,
         .out = from_row(args.dx, row),
         .weight_by_depth = true});
  }
  if (args.dweight.data) {
    gram(
        {.rows = rows,
         .n = args.head.k,
         .b = from_row(args.head.x, row),
         .parts = {{args.columns, dlogits}},
         .out = args.dweight});
  }
}

}  // namespace

void kl_head(const KlHeadArgs& args) {
  thread_local Buffers buffers;
  const int64_t most = tile_rows(args.rows, args.columns);
  // Products run in the types of x and the weight.
  const DType type = args.head.weight.type;
  for (int64_t row = 0; row < args.rows; row += most) {
    const int64_t rows = std::min(most, args.rows - row);
    const auto logits =
        logits_of(args.head, row, rows, args.columns, buffers.logits);
    const Matrix dlogits{
        buffers.slopes.get<float>(rows * args.columns), type, args.columns};
    if (args.reference.x.data) {
      kl_rows(
          {.rows = rows,
           .columns = args.columns,
           .temperature = args.temperature,
           .cap = args.head.cap,
           .factor = args.factor,
           .logits = logits,
           .reference = logits_of(
               args.reference, row, rows, args.columns, buffers.reference),
           .loss = args.loss + row,
           .dlogits = dlogits});
    } else {
      auto top = args.top;
      top.values = from_row(top.values, row);
      top.columns += row * top.count;
      kl_top(
          {.rows = rows,
           .columns = args.columns,
           .temperature = args.temperature,
           .cap = args.head.cap,
           .factor = args.factor,
           .logits = logits,
           .reference = top,
           .loss = args.loss + row,
           .dlogits = dlogits});
    }
    add_gradients(
        args, row, rows, {dlogits.data, dlogits.type, dlogits.stride});
  }
}

void top_head(const TopHeadArgs& args) {
  thread_local Scratch scratch;
  const int64_t most = tile_rows(args.rows, args.columns);
  for (int64_t row = 0; row < args.rows; row += most) {
    const int64_t rows = std::min(most, args.rows - row);
    top(
        {.rows = rows,
         .columns = args.columns,
         .count = args.count,
         .x = logits_of(args.head, row, rows, args.columns, scratch),
         .values = from_row(args.values, row),
         .indices = args.indices + row * args.count});
  }
}

}  // namespace pennyweight::kernels
