// P (H + lambda I) P^T = (A + I)^T D^2 (A + I), A strictly lower: the
// factorization of QuIP (arXiv 2307.13304), whose theorem 6 shows that its
// feedback is GPTQ's. In GPTQ's symbols, with H^-1 = U^T U and U upper,
// U^-T = D (A + I), D_ii = 1 / U_ii: one factorization, and no inverse.
//
// By blocks from the last column back: a block b with the columns before it,
//   H = [H_ee H_eb; H_be H_bb]:
//   H_bb = (A_bb + I)^T D_b^2 (A_bb + I)
//   A_be = D_b^-2 (A_bb + I)^-T H_be
//   H_ee <- H_ee - A_be^T D_b^2 A_be.
// Blocks are of two sizes. What a span of kFactorSpan columns takes from all
// before it is one product, deep enough for a product's rate; inside a span, a
// panel of kPanel columns is brought up to date by those after it when its turn
// comes.

#include "method/gptq/factor.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <string>

#include "kernels/kernels.h"
#include "kernels/threads.h"
#include "method/gptq/lanes.h"

namespace pennyweight {

namespace gptq {

namespace {

constexpr int64_t kPanel = 64;
constexpr int64_t kFactorSpan = 512;
/// Rows that a span's product changes at a time: each leaves out most of what
/// stands above the diagonal. More of them need less packing.
constexpr int64_t kFewestRows = 256;
constexpr int64_t kMostRows = 1024;

/// The pivot to go on with, or 0. A pivot is a difference of terms as large
/// as the diagonal, in float32, hence known to `noise`. Of a matrix without
/// negative eigenvalues it is at least the damping; one that has some is fine
/// where the damping outweighs them.
double settle(double pivot, double floor, double noise) {
  if (pivot >= floor || (pivot > noise && pivot > 0.1 * floor)) {
    return pivot;
  }
  return pivot > floor - noise ? floor : 0.0;
}

/// A_bb and D_b^2 of columns begin .. end - 1, in float64: the pivots decide.
bool factor_diagonal(
    float* matrix,
    int64_t n,
    int64_t begin,
    int64_t end,
    double floor,
    const std::vector<float>& diagonal,
    std::vector<float>& pivots) {
  const int64_t size = end - begin;
  std::vector<double> block(size_t(size * size));
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      block[size_t(i * size + j)] = matrix[(begin + i) * n + begin + j];
    }
  }
  for (int64_t i = size - 1; i >= 0; --i) {
    const double pivot = settle(
        block[size_t(i * size + i)],
        floor,
        1e-5 * double(diagonal[size_t(begin + i)]));
    if (pivot == 0) {
      return false;
    }
    pivots[size_t(begin + i)] = float(pivot);
    for (int64_t j = 0; j < i; ++j) {
      block[size_t(i * size + j)] /= pivot;
    }
    for (int64_t j = 0; j < i; ++j) {
      const double a = block[size_t(i * size + j)] * pivot;
      for (int64_t k = 0; k <= j; ++k) {
        block[size_t(j * size + k)] -= a * block[size_t(i * size + k)];
      }
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    float* row = matrix + (begin + i) * n + begin;
    for (int64_t j = 0; j < size; ++j) {
      row[j] = j < i ? float(block[size_t(i * size + j)]) : 0.0f;
    }
    std::fill(row + size, matrix + (begin + i + 1) * n, 0.0f);
  }
  return true;
}

/// A_be of the same columns, kLanes of the columns before them side by side.
void solve_earlier(
    float* matrix,
    int64_t n,
    int64_t begin,
    int64_t end,
    const std::vector<float>& pivots) {
  const float* block = matrix + begin * n + begin;
  kernels::parallel_ranges(begin, kLanes, [&](int64_t first, int64_t last) {
    float lanes[kPanel * kLanes] = {};
    for (int64_t j = first; j < last; j += kLanes) {
      const int64_t count = std::min(kLanes, last - j);
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(matrix + i * n + j, count, lanes + (i - begin) * kLanes);
      }
      solve_block(block, n, end - begin, true, lanes);
      for (int64_t i = begin; i < end; ++i) {
        const float inverse = 1.0f / pivots[size_t(i)];
        const float* lane = lanes + (i - begin) * kLanes;
        for (int64_t c = 0; c < count; ++c) {
          matrix[i * n + j + c] = inverse * lane[c];
        }
      }
    }
  });
}

/// H_rc -= A_br^T D_b^2 A_bc of the block b = begin .. end - 1, for rows
/// first .. last - 1 before it and columns c up to the last of them.
void subtract_block(
    float* matrix,
    int64_t n,
    int64_t begin,
    int64_t end,
    int64_t first,
    int64_t last,
    const std::vector<float>& pivots) {
  using kernels::DType;
  const int64_t size = end - begin;
  const int64_t rows = last - first;
  std::vector<float> turned(size_t(rows * size));  // -(D_b^2 A_br)^T
  constexpr int64_t kTile = 16;
  kernels::parallel_ranges(rows, kPanel, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r += kTile) {
      for (int64_t k = 0; k < size; ++k) {
        const float pivot = -pivots[size_t(begin + k)];
        const float* row = matrix + (begin + k) * n + first;
        for (int64_t j = r; j < std::min(to, r + kTile); ++j) {
          turned[size_t(j * size + k)] = pivot * row[j];
        }
      }
    }
  });
  float* out = matrix + first * n;
  kernels::matmul(
      {.m = rows,
       .n = last,
       .k = size,
       .x = {turned.data(), DType::f32, size},
       .weight = {matrix + begin * n, DType::f32, n},
       .bias = {},
       .residual = {out, DType::f32, n},
       .out = {out, DType::f32, n},
       .weight_by_depth = true});
}

}  // namespace

bool factor_in_place(
    float* matrix,
    int64_t n,
    double floor,
    std::vector<float>& pivots) {
  if (!(floor > 0)) {
    return false;
  }
  pivots.assign(size_t(n), 0.0f);
  std::vector<float> diagonal(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    diagonal[size_t(i)] = matrix[i * n + i];
  }
  for (int64_t end = n, span = 0; end > 0; end = span) {
    span = std::max<int64_t>(0, end - kFactorSpan);
    for (int64_t last = end, first = 0; last > span; last = first) {
      first = std::max(span, last - kPanel);
      if (last < end) {
        subtract_block(matrix, n, last, end, first, last, pivots);
      }
      if (!factor_diagonal(matrix, n, first, last, floor, diagonal, pivots)) {
        return false;
      }
      solve_earlier(matrix, n, first, last, pivots);
    }
    const int64_t rows = std::clamp(span / 8, kFewestRows, kMostRows);
    for (int64_t first = 0; first < span; first += rows) {
      const int64_t last = std::min(span, first + rows);
      subtract_block(matrix, n, span, end, first, last, pivots);
    }
  }
  return true;
}

}  // namespace gptq

namespace {

/// Symmetric in the last bit, finite; returns the mean of the diagonal.
double check_hessian(std::vector<float>& hessian, int64_t n) {
  constexpr int64_t kTile = 16;  // rows of both sides that fit a cache
  std::atomic<bool> finite{true};
  kernels::parallel_tasks((n + kTile - 1) / kTile, [&](int64_t tile) {
    const int64_t first = tile * kTile;
    const int64_t last = std::min(n, first + kTile);
    bool all = true;
    for (int64_t begin = 0; begin < last; begin += kTile) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = begin; j < std::min(i + 1, begin + kTile); ++j) {
          float& lower = hessian[size_t(i * n + j)];
          float& upper = hessian[size_t(j * n + i)];
          if (lower != upper) {
            lower = upper = 0.5f * (lower + upper);
          }
          all = all && std::isfinite(lower);
        }
      }
    }
    if (!all) {
      finite = false;
    }
  });
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += hessian[size_t(i * n + i)];
  }
  if (!finite || !std::isfinite(sum)) {
    throw numeric_error(
        "gptq",
        "the Hessian is not finite; the model's activations overflow on the "
        "calibration data");
  }
  return sum / double(n);
}

void permute(
    const std::vector<float>& matrix,
    const std::vector<int64_t>& order,
    float* out) {
  const auto n = int64_t(order.size());
  kernels::parallel_ranges(n, 32, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float* row = matrix.data() + order[size_t(i)] * n;
      for (int64_t j = 0; j < n; ++j) {
        out[i * n + j] = row[order[size_t(j)]];
      }
    }
  });
}

}  // namespace

GptqHessian::GptqHessian(
    std::vector<float> hessian,
    int64_t columns,
    const GptqOptions& options)
    : factor_(std::make_unique<Factor>()) {
  if (columns <= 0 || int64_t(hessian.size()) != columns * columns) {
    throw argument_error(
        "gptq",
        "a Hessian of " + std::to_string(hessian.size()) +
            " values for a linear of " + std::to_string(columns) + " inputs");
  }
  Factor& f = *factor_;
  f.columns = columns;
  double mean = check_hessian(hessian, columns);
  f.damped = std::move(hessian);
  const auto diagonal = [&](int64_t i) -> float& {
    return f.damped[size_t(i * columns + i)];
  };
  for (int64_t i = 0; i < columns; ++i) {
    f.dead_inputs += diagonal(i) <= 0;
  }
  // With no input at all, any multiple of the identity rounds to nearest.
  mean = mean > 0 ? mean : 1.0;

  f.order.resize(size_t(columns));
  std::iota(f.order.begin(), f.order.end(), int64_t(0));
  if (options.act_order && !options.plain) {
    std::stable_sort(f.order.begin(), f.order.end(), [&](int64_t a, int64_t b) {
      return diagonal(a) > diagonal(b);
    });
  }
  // Its pages are touched first where they are filled, by all threads.
  f.feedback = std::make_unique_for_overwrite<float[]>(
      size_t(columns) * size_t(columns));
  double applied = 0;
  const double start = std::max(options.damp, 0.0);
  for (f.damp = start; f.damp <= 1e3; f.damp = std::max(10 * f.damp, 1e-4)) {
    f.lambda = f.damp * mean;
    for (int64_t i = 0; i < columns; ++i) {
      diagonal(i) = float(double(diagonal(i)) + (f.lambda - applied));
    }
    applied = f.lambda;
    permute(f.damped, f.order, f.feedback.get());
    if (gptq::factor_in_place(f.feedback.get(), columns, f.lambda, f.pivots)) {
      return;
    }
  }
  throw numeric_error(
      "gptq",
      "the Hessian is not positive definite at any damping; the calibration "
      "data may hold too few tokens");
}

GptqHessian::~GptqHessian() = default;
GptqHessian::GptqHessian(GptqHessian&&) noexcept = default;
GptqHessian& GptqHessian::operator=(GptqHessian&&) noexcept = default;

int64_t GptqHessian::columns() const {
  return factor_->columns;
}

double GptqHessian::lambda() const {
  return factor_->lambda;
}

double GptqHessian::damp() const {
  return factor_->damp;
}

int64_t GptqHessian::dead_inputs() const {
  return factor_->dead_inputs;
}

const GptqHessian::Factor& GptqHessian::factor() const {
  return *factor_;
}

}  // namespace pennyweight
