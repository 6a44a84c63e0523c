#include "ops/kl_head.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <string>
#include <utility>

#include "ops/check.h"
#include "ops/evaluated.h"
#include "ops/head/tile_ops.h"
#include "ops/linear.h"

namespace pennyweight::ops {

namespace {

using Reference = std::variant<Head, TopLogits>;

// Memory for the gradients by a tile's logits and by its weight. The wider a
// tile, the larger and faster are the products of the second pass.
constexpr int64_t kTileBytes = 16 << 20;
constexpr int64_t kTileStep = 512;
constexpr int64_t kWidestTile = 16384;

int tile_columns(const Head& head) {
  const int64_t rows = head.x.shape(0);
  const int64_t in = head.x.shape(1);
  const int64_t fitting = kTileBytes / std::max(rows * 2, in * 4);
  return int(
      std::clamp(fitting / kTileStep * kTileStep, kTileStep, kWidestTile));
}

/// Calls f(first, count) for all tiles of the head.
template <class F>
void each_tile(const Head& head, F&& f) {
  const int step = tile_columns(head);
  for (int first = 0; first < head.vocab; first += step) {
    f(first, std::min(step, head.vocab - first));
  }
}

HeadRows tile_of(const Head& head, int first, int count) {
  auto tile = head.tile(first, count);
  return {head.x, std::move(tile.weight), std::move(tile.bias), head.cap};
}

void check(const Head& head, const Head& reference) {
  require(
      reference.x.shape(0) == head.x.shape(0) && reference.vocab == head.vocab,
      "kl_head",
      "the reference has other rows or another vocabulary");
}

/// The scoring state of both sides' logits, divided by the temperature, once it
/// has seen the whole vocabulary.
mx::array
see_all(const Head& head, const Head& reference, const KlOptions& options) {
  const int rows = head.x.shape(0);
  const auto targets = mx::zeros({rows}, mx::int32);
  auto state = score_start(rows);
  each_tile(head, [&](int first, int count) {
    state = score_linear(
        state,
        tile_of(head, first, count),
        tile_of(reference, first, count),
        targets,
        first,
        1 / options.temperature);
    mx::eval(state);
  });
  return state;
}

TopKl see_top(
    const Head& head,
    const TopLogits& reference,
    const KlOptions& options) {
  require(
      reference.columns.ndim() == 2 &&
          reference.columns.shape(0) == head.x.shape(0),
      "kl_head",
      "the reference has other rows");
  auto values = mx::zeros(reference.columns.shape());
  each_tile(head, [&](int first, int count) {
    values = pick_logits(
        values, tile_of(head, first, count), reference.columns, first);
    mx::eval(values);
  });
  auto top = kl_top(values, reference, head.cap, options);
  mx::eval(top.loss, top.gradient);
  return top;
}

/// The second pass. by_logits(tile, first) gives the gradient by a tile's
/// logits; from these come dx, which is returned, and the gradients by the
/// weight's tiles, which go to `gradient`.
template <class F>
mx::array
go_back(const Head& head, F&& by_logits, const TileGradientFn& gradient) {
  auto dx = evaluated(mx::zeros(head.x.shape()));
  each_tile(head, [&](int first, int count) {
    const auto tile = tile_of(head, first, count);
    const auto own = by_logits(tile, first);
    dx = add_transposed(dx, own, tile.weight);
    if (!gradient) {
      mx::eval(dx);
      return;
    }
    const auto by_weight = weight_gradient(own, head.x);
    mx::eval(dx, by_weight);
    gradient(first, count, by_weight);
  });
  return dx;
}

}  // namespace

Head whole_head(const HeadRows& rows) {
  return {
      rows.x,
      rows.weight.shape(0),
      [rows](int first, int count) {
        HeadTile tile{slice_rows(rows.weight, first, count)};
        if (rows.bias) {
          tile.bias = slice_rows(*rows.bias, first, count);
        }
        return tile;
      },
      rows.cap};
}

KlHead kl_head(
    const Head& head,
    const Reference& reference,
    const KlOptions& options,
    const TileGradientFn& gradient) {
  if (const auto* top = std::get_if<TopLogits>(&reference)) {
    const auto seen = see_top(head, *top, options);
    auto dx = go_back(
        head,
        [&](const HeadRows& tile, int first) {
          return spread_gradient(
              seen.gradient,
              top->columns,
              first,
              tile.weight.shape(0),
              tile.weight.dtype());
        },
        gradient);
    return {seen.loss, dx};
  }
  const auto& other = std::get<Head>(reference);
  check(head, other);
  const auto state = see_all(head, other, options);
  auto loss = evaluated(score_finish(state).kl);
  auto dx = go_back(
      head,
      [&](const HeadRows& tile, int first) {
        return kl_gradient(
            state, tile, tile_of(other, first, tile.weight.shape(0)), options);
      },
      gradient);
  return {loss, dx};
}

mx::array kl_loss(
    const Head& head,
    const Reference& reference,
    const KlOptions& options) {
  if (const auto* top = std::get_if<TopLogits>(&reference)) {
    return see_top(head, *top, options).loss;
  }
  const auto& other = std::get<Head>(reference);
  check(head, other);
  return score_finish(see_all(head, other, options)).kl;
}

mx::array fisher_head(const Head& head, uint64_t seed, int64_t first_row) {
  auto state = fisher_start(head.x.shape(0));
  each_tile(head, [&](int first, int count) {
    state = fisher_update(
        state, tile_of(head, first, count), {seed, first_row, first});
    mx::eval(state);
  });
  return go_back(
      head,
      [&](const HeadRows& tile, int first) {
        return fisher_gradient(state, tile, {seed, first_row, first});
      },
      {});
}

}  // namespace pennyweight::ops
