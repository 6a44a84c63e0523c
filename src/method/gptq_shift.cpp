// T = W + share * C H^-1, with H = (A + I)^T D^2 (A + I) and C of GptqShift:
//   Z (A + I) = C        from the last column back,
//   X (A + I)^T = Z D^-2 from the first on, X = C H^-1.

#include <algorithm>

#include "kernels/kernels.h"
#include "method/gptq_tile.h"

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

}  // namespace

void RowTile::load(const float* weight, int64_t rows, const GptqShift& shift) {
  std::fill(target_.begin(), target_.end(), 0.0f);
  rows_to_lanes(weight, columns_, rows, columns_, target_.data());
  weight_energy_ = total_dot(target_.data(), target_.data(), columns_);
  shift_energy_ = 0;
  if (shift.input != nullptr || shift.output != nullptr) {
    apply_shift(weight, rows, shift);
  }
}

/// T = W + share * C H^-1.
void RowTile::apply_shift(
    const float* weight,
    int64_t rows,
    const GptqShift& shift) {
  std::vector<float> cross(lanes_of(columns_));
  if (shift.output != nullptr) {
    std::copy_n(shift.output, rows * columns_, cross.data());
  }
  if (shift.input != nullptr) {
    kernels::matmul(
        {.m = rows,
         .n = columns_,
         .k = columns_,
         .x = {weight, DType::f32, columns_},
         .weight = {shift.input, DType::f32, columns_},
         .bias = {},
         .residual = {cross.data(), DType::f32, columns_},
         .out = {cross.data(), DType::f32, columns_},
         .weight_by_depth = true});
  }
  std::vector<float> permuted(lanes_of(columns_));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < columns_; ++i) {
      permuted[size_t(r * columns_ + i)] =
          cross[size_t(r * columns_ + factor_.order[size_t(i)])];
    }
  }
  solve(permuted);
  const auto share = float(setup_.options->shift);
  for (int64_t i = 0; i < columns_; ++i) {
    float* lane = target_.data() + factor_.order[size_t(i)] * kLanes;
    for (int64_t r = 0; r < rows; ++r) {
      const float move = share * permuted[size_t(r * columns_ + i)];
      shift_energy_ += double(move) * double(move);
      lane[r] += move;
    }
  }
}

/// rows [kLanes, columns] in the order of rounding: C becomes C H^-1, with
/// Z (A + I) = C from the last column back, then X (A + I)^T = Z D^-2.
/// Solved blocks are kept negated, as the products only add.
void RowTile::solve(std::vector<float>& rows) {
  const int64_t n = columns_;
  const float* a = factor_.feedback.data();
  const auto lanes = [&] { return work_.data(); };
  const auto update = [&](int64_t begin,
                          int64_t size,
                          int64_t from,
                          int64_t count,
                          const float* weight,
                          bool by_depth) {
    if (count == 0) {
      return;
    }
    float* out = rows.data() + begin;
    kernels::matmul(
        {.m = kLanes,
         .n = size,
         .k = count,
         .x = {rows.data() + from, DType::f32, n},
         .weight = {weight, DType::f32, n},
         .bias = {},
         .residual = {out, DType::f32, n},
         .out = {out, DType::f32, n},
         .weight_by_depth = by_depth});
  };
  const int64_t last = (n - 1) / kBlock * kBlock;
  for (int64_t begin = last; begin >= 0; begin -= kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    const int64_t size = end - begin;
    update(begin, size, end, n - end, a + end * n + begin, true);
    rows_to_lanes(rows.data() + begin, n, kLanes, size, lanes());
    solve_block(a + begin * n + begin, n, size, true, lanes());
    lanes_to_rows(lanes(), n, size, -1.0f, rows.data() + begin);
  }
  for (int64_t r = 0; r < kLanes; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      rows[size_t(r * n + i)] /= -factor_.pivots[size_t(i)];
    }
  }
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t size = std::min(n, begin + kBlock) - begin;
    update(begin, size, 0, begin, a + begin * n, false);
    rows_to_lanes(rows.data() + begin, n, kLanes, size, lanes());
    solve_block(a + begin * n + begin, n, size, false, lanes());
    lanes_to_rows(lanes(), n, size, -1.0f, rows.data() + begin);
  }
  for (float& value : rows) {
    value = -value;
  }
}

}  // namespace pennyweight::gptq
