// One tile of rows, each row w [n] on its own; H is damped throughout.
//   T   = W + C H^-1, C = sum (y - W x) x^T           (the shift, GptqShift)
//   q   = GPTQ's pass over T                           (pass.cpp)
//   s,b = argmin |T - s q - b|_H, rounded              (refit.cpp)
//   q   = coordinate descent on |T - s q - b|_H        (descend_block)
// The last two repeat. G = (T - Q) H is kept in step with the codes.

#include "method/gptq/tile.h"

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace pennyweight::gptq {

using kernels::DType;

double total_dot(const float* x, const float* y, int64_t count) {
  double total = 0;
  float part[kLanes];
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t run = std::min(kBlock, count - i);
    lane_dots(x + i * kLanes, y + i * kLanes, run, part);
    for (float value : part) {
      total += value;
    }
  }
  return total;
}

void add_product(
    const float* x,
    int64_t stride,
    int64_t m,
    int64_t k,
    const float* y,
    float* out) {
  kernels::matmul(
      {.m = m,
       .n = kLanes,
       .k = k,
       .x = {x, DType::f32, stride},
       .weight = {y, DType::f32, kLanes},
       .bias = {},
       .residual = {out, DType::f32, kLanes},
       .out = {out, DType::f32, kLanes},
       .weight_by_depth = true});
}

RowTile::RowTile(const TileSetup& setup)
    : setup_(setup),
      factor_(*setup.factor),
      columns_(setup.factor->columns),
      groups_(columns_ / setup.group_size),
      group_of_(size_t(columns_)),
      target_(lanes_of(columns_)),
      codes_(lanes_of(columns_)),
      error_(lanes_of(columns_)),
      gradient_(lanes_of(columns_)),
      scales_(lanes_of(groups_)),
      biases_(lanes_of(groups_)),
      work_(lanes_of(columns_)),
      more_(lanes_of(columns_)) {
  for (int64_t i = 0; i < columns_; ++i) {
    group_of_[size_t(i)] = i / setup.group_size;
  }
}

Grids RowTile::grids() {
  return {
      scales_.data(), biases_.data(), setup_.format.top, setup_.format.levels};
}

LaneGrid RowTile::grid_of(int64_t group) {
  return {scales_.data() + group * kLanes, biases_.data() + group * kLanes};
}

GroupWeights RowTile::target_of(int64_t group) const {
  const int64_t size = setup_.group_size;
  return {
      target_.data() + group * size * kLanes,
      size,
      setup_.importance.data() + group * size};
}

/// Round to nearest on MLX's grids: the yardstick.
void RowTile::nearest() {
  for (int64_t g = 0; g < groups_; ++g) {
    nearest_grid(setup_.format, target_of(g), grid_of(g));
    round_grids(setup_.format, grid_of(g));
    const int64_t at = g * setup_.group_size * kLanes;
    round_group(
        setup_.format,
        grid_of(g),
        target_of(g),
        codes_.data() + at,
        error_.data() + at);
  }
}

void RowTile::fit_grids() {
  for (int64_t g = 0; g < groups_; ++g) {
    if (setup_.options->grid_search) {
      search_grid(setup_.format, target_of(g), grid_of(g));
    } else {
      nearest_grid(setup_.format, target_of(g), grid_of(g));
      round_grids(setup_.format, grid_of(g));
    }
  }
}

void RowTile::take_gradient() {
  for (int64_t i = 0; i < columns_; ++i) {
    const int64_t at = i * kLanes;
    const int64_t grid = group_of_[size_t(i)] * kLanes;
    for (int64_t l = 0; l < kLanes; ++l) {
      const float value = codes_[size_t(at + l)] * scales_[size_t(grid + l)] +
          biases_[size_t(grid + l)];
      error_[size_t(at + l)] = target_[size_t(at + l)] - value;
    }
  }
  std::fill(gradient_.begin(), gradient_.end(), 0.0f);
  add_product(
      factor_.damped.data(),
      columns_,
      columns_,
      columns_,
      error_.data(),
      gradient_.data());
}

double RowTile::loss() const {
  const float* e = error_.data();
  const double damped = total_dot(e, gradient_.data(), columns_);
  return std::max(0.0, damped - factor_.lambda * total_dot(e, e, columns_));
}

/// Blocks of kBlock columns, whose moves change G of the span's later columns
/// at once, and all of G when the span is done: a product of more depth.
int64_t RowTile::descend() {
  const int64_t n = columns_;
  const int64_t span = n <= kNarrow ? kBlock : kSpan;
  int64_t changed = 0;
  for (int64_t begin = 0; begin < n; begin += span) {
    const int64_t size = std::min(n, begin + span) - begin;
    const int64_t moved = descend_span(begin, size);
    if (moved > 0) {
      add_product(
          factor_.damped.data() + begin,
          n,
          n,
          size,
          more_.data(),
          gradient_.data());
      for (int64_t i = 0; i < size * kLanes; ++i) {
        error_[size_t(begin * kLanes + i)] += more_[size_t(i)];
      }
    }
    changed += moved;
  }
  return changed;
}

/// The moves of columns begin .. begin + size - 1, to more_; G stays.
int64_t RowTile::descend_span(int64_t begin, int64_t size) {
  const int64_t n = columns_;
  const float* h = factor_.damped.data() + begin * n + begin;
  // The span works on a copy, as the product after it updates all of G.
  std::copy_n(gradient_.data() + begin * kLanes, size * kLanes, work_.data());
  int64_t changed = 0;
  for (int64_t at = 0; at < size; at += kBlock) {
    const int64_t columns = std::min(size - at, kBlock);
    const int64_t after = size - at - columns;
    float* moves = more_.data() + at * kLanes;
    const int64_t moved = descend_block(
        {.columns = columns,
         .hessian = h + at * n + at,
         .hessian_stride = n,
         .groups = group_of_.data() + begin + at,
         .grids = grids(),
         .gradient = work_.data() + at * kLanes,
         .codes = codes_.data() + (begin + at) * kLanes,
         .moves = moves});
    if (moved > 0 && after > 0) {
      add_product(
          h + (at + columns) * n + at,
          n,
          after,
          columns,
          moves,
          work_.data() + (at + columns) * kLanes);
    }
    changed += moved;
  }
  return changed;
}

TileFigures RowTile::round(bool judge) {
  const GptqOptions& options = *setup_.options;
  TileFigures figures;
  figures.judged = judge ? rows_ : 0;
  figures.weight = weight_energy_;
  figures.shift = shift_energy_;
  if (judge) {
    nearest();
    take_gradient();
    figures.loss_nearest = loss();
  }
  if (!options.plain) {
    fit_grids();
  }
  round_all();
  if (judge || (options.rounds > 0 && !options.plain)) {
    take_gradient();
    figures.loss_rounded = loss();
    figures.loss = figures.loss_rounded;
  }
  return figures;
}

TileFigures RowTile::improve(TileFigures figures) {
  const GptqOptions& options = *setup_.options;
  if (options.plain || options.rounds < 1) {
    return figures;
  }
  // The fp modes' scales are too coarse to be fitted.
  const bool refits = options.refit && setup_.format.levels == Levels::affine;
  // A round that gains less than this is the last.
  constexpr double kLeastGain = 1e-3;
  double best = total_dot(error_.data(), gradient_.data(), columns_);
  while (figures.rounds < options.rounds) {
    ++figures.rounds;
    if (refits) {
      refit(true);
    }
    if (options.descend) {
      figures.moved += descend();
    }
    const double now = total_dot(error_.data(), gradient_.data(), columns_);
    const bool gained = now < best * (1 - kLeastGain);
    best = now;
    if (!gained) {
      break;
    }
  }
  if (refits) {
    best -= refit(false);
  }
  const float* e = error_.data();
  best -= factor_.lambda * total_dot(e, e, columns_);
  figures.loss = std::max(0.0, best);
  return figures;
}

void RowTile::store(int64_t first, int64_t rows, GptqResult& to) const {
  store_lanes(
      setup_.format.levels,
      first,
      rows,
      codes_.data(),
      scales_.data(),
      biases_.data(),
      to);
}

GptqResult make_result(int64_t rows, int64_t columns, int64_t group_size) {
  GptqResult result;
  result.rows = rows;
  result.codes.resize(size_t(rows * columns));
  result.scales.resize(size_t(rows * columns / group_size));
  result.biases.resize(result.scales.size());
  return result;
}

void store_lanes(
    Levels levels,
    int64_t first,
    int64_t rows,
    const float* codes,
    const float* scales,
    const float* biases,
    GptqResult& to) {
  const int64_t columns = int64_t(to.codes.size()) / to.rows;
  const int64_t groups = int64_t(to.scales.size()) / to.rows;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < columns; ++i) {
      to.codes[size_t((first + r) * columns + i)] =
          level_code(levels, codes[i * kLanes + r]);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const auto at = size_t((first + r) * groups + g);
      to.scales[at] = scales[g * kLanes + r];
      to.biases[at] = biases[g * kLanes + r];
    }
  }
}

}  // namespace pennyweight::gptq
