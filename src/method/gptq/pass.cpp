// GPTQ's pass over a tile, column by column in the order of rounding:
//   u_i = t_i + sum_{j<i} A_ij e_j,  q_i = round(u_i),  e_j = t_j - value of
//   q_j.
// Inside a block of columns one after the other (round_block), across blocks by
// products.

#include <algorithm>

#include "method/gptq/tile.h"

namespace pennyweight::gptq {

/// Plain GPTQ's grids, of the weights w' as the errors of earlier columns
/// have moved them. u is not yet that: w'_i is u_i had the block's columns
/// before it been "rounded" to their w', hence (I + A)(w' - t) = u - t.
void RowTile::take_grids(
    int64_t first,
    int64_t columns,
    const float* target,
    const float* moved) {
  const int64_t size = setup_.group_size;
  std::vector<float> weight(lanes_of(columns));
  for (size_t i = 0; i < weight.size(); ++i) {
    weight[i] = moved[i] - target[i];
  }
  solve_block(
      factor_.feedback.get() + first * columns_ + first,
      columns_,
      columns,
      false,
      weight.data());
  for (size_t i = 0; i < weight.size(); ++i) {
    weight[i] += target[i];
  }
  for (int64_t c = 0; c < columns; c += size) {
    nearest_grid(
        setup_.format,
        {weight.data() + c * kLanes, size},
        grid_of((first + c) / size));
  }
}

/// u_i = t_i + sum_{j<i} A_ij e_j; the sums over earlier blocks as products,
/// of many columns for what stands before their span.
void RowTile::round_all() {
  const int64_t n = columns_;
  // A plain pass sees a group's grid only when it gets there.
  const int64_t block = setup_.options->plain ? setup_.group_size : kBlock;
  const int64_t span = n <= kNarrow ? block : std::max(block, kSpan);
  std::vector<int64_t> groups(static_cast<size_t>(n));
  std::vector<float> ordered(lanes_of(n));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t column = factor_.order[size_t(i)];
    groups[size_t(i)] = group_of_[size_t(column)];
    std::copy_n(
        target_.data() + column * kLanes, kLanes, ordered.data() + i * kLanes);
  }
  std::vector<float> moved(lanes_of(std::min(n, span)));
  for (int64_t begin = 0; begin < n; begin += span) {
    const int64_t end = std::min(n, begin + span);
    const float* target = ordered.data() + begin * kLanes;
    std::copy_n(target, (end - begin) * kLanes, moved.data());
    const float* feedback = factor_.feedback.get() + begin * n;
    if (begin > 0) {
      add_product(feedback, n, end - begin, begin, work_.data(), moved.data());
    }
    for (int64_t at = begin; at < end; at += block) {
      round_columns(
          at,
          std::min(end, at + block),
          begin,
          ordered.data(),
          groups.data(),
          moved.data() + (at - begin) * kLanes);
    }
  }
  // Only now: plain GPTQ rounds with float32 grids, as mlx-lm does.
  round_grids(setup_.format, grid_of(0), groups_ * kLanes);
}

/// Columns first .. last - 1 in the order of rounding, `moved` being their u
/// without the errors of columns from `span` on. Errors go to work_.
void RowTile::round_columns(
    int64_t first,
    int64_t last,
    int64_t span,
    const float* ordered,
    const int64_t* groups,
    float* moved) {
  const int64_t n = columns_;
  const int64_t size = last - first;
  const float* target = ordered + first * kLanes;
  const float* feedback = factor_.feedback.get() + first * n;
  float* errors = work_.data();
  float* codes = more_.data();
  if (first > span) {
    add_product(
        feedback + span, n, size, first - span, errors + span * kLanes, moved);
  }
  if (setup_.options->plain) {
    take_grids(first, size, target, moved);
  }
  round_block(
      {.columns = size,
       .feedback = feedback + first,
       .feedback_stride = n,
       .groups = groups + first,
       .grids = grids(),
       .target = target,
       .moved = moved,
       .codes = codes,
       .error = errors + first * kLanes});
  for (int64_t i = 0; i < size; ++i) {
    std::copy_n(
        codes + i * kLanes,
        kLanes,
        codes_.data() + factor_.order[size_t(first + i)] * kLanes);
  }
}

}  // namespace pennyweight::gptq
