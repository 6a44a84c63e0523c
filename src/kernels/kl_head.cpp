#include <algorithm>
#include <array>
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

/// A mixer of 64 bits (splitmix64's).
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// v = s q - p (q . s) of one row's p, with q = sqrt(p) and s = +-1 by `key`
/// and column, in place. `slopes`, where given, are multiplied by.
void draw_row(float* p, int64_t columns, uint64_t key, const float* slopes) {
  constexpr int64_t kBits = 64;
  double dot = 0;
  std::array<float, kBits> roots;
  const auto each = [&](auto&& f) {
    for (int64_t first = 0; first < columns; first += kBits) {
      const uint64_t bits = mixed(key + uint64_t(first));
      const int64_t count = std::min(kBits, columns - first);
      for (int64_t i = 0; i < count; ++i) {
        const float root = std::sqrt(p[first + i]);
        roots[size_t(i)] = (bits >> i) & 1 ? root : -root;
      }
      f(first, count);
    }
  };
  each([&](int64_t, int64_t count) {
    float sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      sum += roots[size_t(i)];
    }
    dot += double(sum);
  });
  each([&](int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      p[first + i] = roots[size_t(i)] - p[first + i] * float(dot);
    }
  });
  for (int64_t i = 0; slopes && i < columns; ++i) {
    p[i] *= slopes[i];
  }
}

/// By logits before the cap, d (cap tanh(z / cap)) / dz, in place.
void cap_slopes(float* logits, int64_t count, float cap) {
  parallel_ranges(count, 1 << 12, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float tanh = logits[i] / cap;
      logits[i] = 1 - tanh * tanh;
    }
  });
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

void fisher_head(const FisherHeadArgs& args) {
  thread_local Buffers buffers;
  const int64_t columns = args.columns;
  const int64_t most = tile_rows(args.rows, columns);
  const DType type = args.head.weight.type;
  for (int64_t row = 0; row < args.rows; row += most) {
    const int64_t rows = std::min(most, args.rows - row);
    const auto logits =
        logits_of(args.head, row, rows, columns, buffers.logits);
    float* p = buffers.slopes.get<float>(rows * columns);
    softmax(
        {.rows = rows,
         .columns = columns,
         .x = logits,
         .out = {p, DType::f32, columns}});
    float* slopes = nullptr;
    if (args.head.cap > 0) {
      slopes = buffers.logits.get<float>(rows * columns);
      cap_slopes(slopes, rows * columns, args.head.cap);
    }
    const Matrix dlogits{
        type == DType::f32 ? p : buffers.reference.get<float>(rows * columns),
        type,
        columns};
    parallel_tasks(rows, [&](int64_t i) {
      float* own = p + i * columns;
      draw_row(
          own,
          columns,
          mixed(args.seed ^ mixed(uint64_t(args.first_row + row + i))),
          slopes ? slopes + i * columns : nullptr);
      for (int64_t j = 0; type != DType::f32 && j < columns; ++j) {
        store_at(dlogits, i, j, own[j]);
      }
    });
    matmul(
        {.m = rows,
         .n = args.head.k,
         .k = columns,
         .x = {dlogits.data, dlogits.type, columns},
         .weight = args.head.weight,
         .out = from_row(args.dx, row),
         .weight_by_depth = true});
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
