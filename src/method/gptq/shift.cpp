// T = W + share * C H^-1, with H = (A + I)^T D^2 (A + I) and C of GptqShift:
//   Z (A + I) = C        from the last column back,
//   X (A + I)^T = Z D^-2 from the first on, X = C H^-1.

#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/threads.h"
#include "method/gptq/tile.h"

namespace pennyweight::gptq {

namespace {

using kernels::DType;

/// [columns][lane] from rows of stride `stride`, and back.
void rows_to_lanes(
    const float* rows,
    int64_t stride,
    int64_t count,
    int64_t columns,
    float* lanes) {
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      lanes[c * kLanes + r] = rows[r * stride + c];
    }
  }
}

void lanes_to_rows(
    const float* lanes,
    int64_t stride,
    int64_t columns,
    float sign,
    float* rows) {
  for (int64_t r = 0; r < kLanes; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      rows[r * stride + c] = sign * lanes[c * kLanes + r];
    }
  }
}

/// rows [m, columns] in the order of rounding, on their way from C to C H^-1.
/// Solved blocks are kept negated, as the products only add.
class Solver {
 public:
  Solver(const GptqHessian::Factor& factor, int64_t m, float* rows)
      : a_(factor.feedback.get()), n_(factor.columns), m_(m), rows_(rows) {}

  /// Z (A + I) = C, from the last column back.
  void solve_back() {
    for (int64_t begin = (n_ - 1) / kColumns * kColumns; begin >= 0;
         begin -= kColumns) {
      const int64_t end = std::min(n_, begin + kColumns);
      update(begin, end, end, n_, a_ + end * n_ + begin, true);
      solve_columns(begin, end, true);
    }
  }

  /// X (A + I)^T = Z D^-2, from the first on.
  void solve_forth() {
    for (int64_t begin = 0; begin < n_; begin += kColumns) {
      const int64_t end = std::min(n_, begin + kColumns);
      update(begin, end, 0, begin, a_ + begin * n_, false);
      solve_columns(begin, end, false);
    }
  }

 private:
  static constexpr int64_t kColumns = 256;

  /// Columns begin .. end - 1 += columns first .. last - 1 times `weight`.
  void update(
      int64_t begin,
      int64_t end,
      int64_t first,
      int64_t last,
      const float* weight,
      bool by_depth) {
    if (first == last) {
      return;
    }
    float* out = rows_ + begin;
    kernels::matmul(
        {.m = m_,
         .n = end - begin,
         .k = last - first,
         .x = {rows_ + first, DType::f32, n_},
         .weight = {weight, DType::f32, n_},
         .bias = {},
         .residual = {out, DType::f32, n_},
         .out = {out, DType::f32, n_},
         .weight_by_depth = by_depth});
  }

  void solve_columns(int64_t begin, int64_t end, bool transposed) {
    const float* block = a_ + begin * n_ + begin;
    const int64_t size = end - begin;
    kernels::parallel_tasks(m_ / kLanes, [&](int64_t tile) {
      float lanes[kColumns * kLanes];
      float* rows = rows_ + tile * kLanes * n_ + begin;
      rows_to_lanes(rows, n_, kLanes, size, lanes);
      solve_block(block, n_, size, transposed, lanes);
      lanes_to_rows(lanes, n_, size, -1.0f, rows);
    });
  }

  const float* a_;
  const int64_t n_, m_;
  float* rows_;
};

/// C of some rows, in the order of rounding, and zeros up to whole tiles.
std::vector<float> ordered_cross(
    const GptqHessian::Factor& factor,
    const float* weight,
    int64_t rows,
    const GptqShift& shift) {
  const int64_t n = factor.columns;
  std::vector<float> cross(size_t(rows * n));
  if (shift.output != nullptr) {
    std::copy_n(shift.output, rows * n, cross.data());
  }
  if (shift.input != nullptr) {
    kernels::matmul(
        {.m = rows,
         .n = n,
         .k = n,
         .x = {weight, DType::f32, n},
         .weight = {shift.input, DType::f32, n},
         .bias = {},
         .residual = {cross.data(), DType::f32, n},
         .out = {cross.data(), DType::f32, n},
         .weight_by_depth = true});
  }
  const int64_t tiles = (rows + kLanes - 1) / kLanes;
  std::vector<float> ordered(size_t(tiles * kLanes * n));
  kernels::parallel_ranges(rows, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const float* from = cross.data() + r * n;
      for (int64_t i = 0; i < n; ++i) {
        ordered[size_t(r * n + i)] = from[factor.order[size_t(i)]];
      }
    }
  });
  return ordered;
}

}  // namespace

std::vector<float> shifted_rows(
    const GptqHessian::Factor& factor,
    const float* weight,
    int64_t rows,
    const GptqShift& shift,
    double share) {
  const int64_t n = factor.columns;
  auto moves = ordered_cross(factor, weight, rows, shift);
  const int64_t padded = int64_t(moves.size()) / n;
  Solver solver(factor, padded, moves.data());
  solver.solve_back();
  kernels::parallel_ranges(padded, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        moves[size_t(r * n + i)] /= -factor.pivots[size_t(i)];
      }
    }
  });
  solver.solve_forth();
  std::vector<float> target(weight, weight + rows * n);
  kernels::parallel_ranges(rows, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        target[size_t(r * n + factor.order[size_t(i)])] -=
            float(share) * moves[size_t(r * n + i)];
      }
    }
  });
  return target;
}

void RowTile::load(const float* weight, const float* target, int64_t rows) {
  rows_ = rows;
  std::fill(target_.begin(), target_.end(), 0.0f);
  rows_to_lanes(target, columns_, rows, columns_, target_.data());
  weight_energy_ = 0;
  shift_energy_ = 0;
  for (int64_t i = 0; i < rows * columns_; ++i) {
    const double w = weight[i];
    const double move = double(target[i]) - w;
    weight_energy_ += w * w;
    shift_energy_ += move * move;
  }
}

}  // namespace pennyweight::gptq
