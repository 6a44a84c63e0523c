#include <mlx/ops.h>

#include <string>

#include "ops/check.h"
#include "ops/head/head_inputs.h"
#include "ops/head/tile_ops.h"

namespace pennyweight::ops {

namespace {

/// Where `columns` are in the tile of n columns from `first` on, and whether
/// they are in it at all.
struct PlacesInTile {
  mx::array at, here;

  PlacesInTile(const mx::array& columns, int first, int n)
      : at(mx::astype(columns, mx::int32) - mx::array(first)),
        here(at >= mx::array(0) && at < mx::array(n)) {}
};

/// The columns that input `i` holds, and the tile's.
kernels::TopColumns
places_of(CpuWork& work, size_t i, int first, int64_t tile_columns) {
  return {
      .rows = work.size(i, 0),
      .count = work.size(i, 1),
      .indices = work.data<uint32_t>(i),
      .first = first,
      .columns = tile_columns};
}

/// uint32 [2, rows, count]: columns, then the bits of their float32 logits.
mx::array largest_by_mlx(const mx::array& logits, int count) {
  const auto order = mx::argpartition(mx::negative(logits), count - 1, -1);
  const auto columns =
      mx::sort(mx::slice(order, {0, 0}, {logits.shape(0), count}), -1);
  const auto values = mx::take_along_axis(logits, columns, -1);
  return mx::stack({columns, mx::view(values, mx::uint32)});
}

/// [1 + count, rows] in one flat array: the losses, then the gradient by row.
mx::array kl_top_by_mlx(const Arrays& in, float cap, const KlOptions& options) {
  const auto log_softmax = [&](const mx::array& x) {
    const auto z = as_float32(x) * mx::array(1 / options.temperature);
    return z - mx::logsumexp(z, -1, true);
  };
  const auto own = log_softmax(in[0]);
  const auto target = log_softmax(in[1]);
  const auto loss = mx::sum(mx::exp(target) * (target - own), -1);
  const auto capped = (mx::exp(own) - mx::exp(target)) *
      mx::array(options.factor / options.temperature);
  return mx::concatenate(
      {loss, mx::flatten(gradient_before_cap(capped, in[0], cap))});
}

}  // namespace

TopLogits top_logits(const Head& from, int count, mx::Dtype dtype) {
  const auto tile = from.tile(0, from.vocab);
  const HeadRows head{from.x, tile.weight, tile.bias, from.cap};
  check_linear(head.x, head.weight, head.bias);
  require_floating(dtype, "top_logits");
  require(
      head.x.ndim() == 2 && count >= 1 && count <= from.vocab,
      "top_logits",
      std::to_string(count) + " logits were asked for of " +
          std::to_string(from.vocab));
  Arrays inputs;
  const HeadInputs own(inputs, head);
  const auto both = make({
      .name = "top_logits",
      .shape = {2, head.x.shape(0), count},
      .dtype = mx::uint32,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            return largest_by_mlx(own.logits(in), count);
          },
      .cpu = [=](CpuWork& work) -> Task {
        auto* columns = static_cast<uint32_t*>(work.result().data);
        const kernels::TopHeadArgs args{
            .rows = work.rows(0),
            .columns = work.size(1, 0),
            .count = count,
            .head = own.side(work),
            .values =
                {columns + work.out_size() / 2, kernels::DType::f32, count},
            .indices = columns};
        return [args] { kernels::top_head(args); };
      },
  });
  const auto values = mx::view(part_of(both, 1), mx::float32);
  return {mx::astype(values, dtype), part_of(both, 0)};
}

mx::array pick_logits(
    const mx::array& values,
    const HeadRows& head,
    const mx::array& columns,
    int first) {
  check_linear(head.x, head.weight, head.bias);
  const int n = head.weight.shape(0);
  Arrays inputs{values, columns};
  const HeadInputs own(inputs, head);
  return make({
      .name = "pick_logits",
      .shape = values.shape(),
      .dtype = mx::float32,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            const PlacesInTile places(in[1], first, n);
            const auto inside =
                mx::clip(places.at, mx::array(0), mx::array(n - 1));
            return mx::where(
                places.here,
                mx::take_along_axis(own.logits(in), inside, -1),
                in[0]);
          },
      .cpu = [=](CpuWork& work) -> Task {
        const kernels::PickTopArgs args{
            .places = places_of(work, 1, first, n),
            .head = own.side(work),
            .values = static_cast<float*>(work.result_from(0).data)};
        return [args] { kernels::pick_top(args); };
      },
  });
}

TopKl kl_top(
    const mx::array& values,
    const TopLogits& reference,
    float cap,
    const KlOptions& options) {
  require_floating(reference.values, "kl_head", "the reference's logits");
  require(
      reference.values.ndim() == 2 &&
          reference.values.shape() == values.shape() &&
          reference.columns.shape() == values.shape() &&
          reference.columns.dtype() == mx::uint32,
      "kl_head",
      "the reference's largest logits " + describe(reference.values) +
          " and columns " + describe(reference.columns) + " do not fit");
  const int rows = values.shape(0);
  const int size = rows * (1 + values.shape(1));
  const auto flat = make({
      .name = "kl_top",
      .shape = {size},
      .dtype = mx::float32,
      .inputs = {values, reference.values},
      .fallback =
          [=](const Arrays& in) { return kl_top_by_mlx(in, cap, options); },
      .cpu = [=](CpuWork& work) -> Task {
        auto* loss = static_cast<float*>(work.result().data);
        const kernels::KlTopArgs args{
            .rows = work.rows(0),
            .count = work.columns(0),
            .temperature = options.temperature,
            .cap = cap,
            .factor = options.factor,
            .values = work.data<float>(0),
            .reference = work.matrix(1),
            .loss = loss,
            .gradient = loss + work.rows(0)};
        return [args] { kernels::kl_top(args); };
      },
  });
  return {
      mx::slice(flat, {0}, {rows}),
      mx::reshape(mx::slice(flat, {rows}, {size}), values.shape())};
}

mx::array spread_gradient(
    const mx::array& gradient,
    const mx::array& columns,
    int first,
    int n,
    mx::Dtype dtype) {
  const int rows = gradient.shape(0);
  return make({
      .name = "spread_gradient",
      .shape = {rows, n},
      .dtype = dtype,
      .inputs = {gradient, columns},
      .fallback =
          [=](const Arrays& in) {
            // Values of other tiles go to one more column, which is cut off.
            const PlacesInTile places(in[1], first, n);
            const auto spread = mx::put_along_axis(
                mx::zeros({rows, n + 1}),
                mx::where(places.here, places.at, mx::array(n)),
                in[0],
                -1);
            return mx::astype(mx::slice(spread, {0, 0}, {rows, n}), dtype);
          },
      .cpu = [=](CpuWork& work) -> Task {
        const kernels::SpreadTopArgs args{
            .places = places_of(work, 1, first, n),
            .values = work.data<float>(0),
            .tile = work.result()};
        return [args] { kernels::spread_top(args); };
      },
  });
}

}  // namespace pennyweight::ops
