#include "ops/head_tile_ops.h"

#include <mlx/ops.h>

#include <utility>

#include "kernels/score_state.h"
#include "ops/check.h"
#include "ops/cpu_path.h"
#include "ops/head_side.h"
#include "ops/mlx_path.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;

class KlSlopes : public HeadPrimitive {
 public:
  KlSlopes(
      mx::Stream stream,
      SideParts head,
      SideParts reference,
      const KlOptions& options)
      : HeadPrimitive(stream), parts_{head, reference}, options_(options) {}

  const char* name() const override {
    return "pennyweight::KlSlopes";
  }

 protected:
  // Inputs are state, then both sides.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto state = without_gaps(inputs[0]);
    allocate(out);
    size_t next = 1;
    kernels::KlTileArgs args{
        .rows = out.shape(0),
        .columns = out.shape(1),
        .head = side_of(parts_[0], inputs, next)};
    args.reference = side_of(parts_[1], inputs, next);
    args.temperature = options_.temperature;
    args.factor = options_.factor;
    args.state = state.data<float>();
    args.state_stride = kScoreState;
    args.gradient = matrix_of(out);
    return [args] { kernels::kl_tile(args); };
  }

 private:
  SideParts parts_[2];
  KlOptions options_;
};

class PickLogits : public HeadPrimitive {
 public:
  PickLogits(mx::Stream stream, SideParts head, int first)
      : HeadPrimitive(stream), parts_(head), first_(first) {}

  const char* name() const override {
    return "pennyweight::PickLogits";
  }

 protected:
  // Inputs are values, columns, then the head.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto columns = without_gaps(inputs[1]);
    const auto place = go_on(inputs[0], out);
    size_t next = 2;
    const kernels::PickTopArgs args{
        .places =
            {out.shape(0),
             out.shape(1),
             columns.data<uint32_t>(),
             first_,
             inputs[3].shape(0)},
        .head = side_of(parts_, inputs, next),
        .values = out.data<float>()};
    return [args, place] {
      place.copy();
      kernels::pick_top(args);
    };
  }

 private:
  SideParts parts_;
  int first_;
};

/// [rows, 1 + count]: the slopes by row, and before them all losses, in one
/// flat array, since primitives have one result.
class KlTop : public CpuPrimitive {
 public:
  KlTop(mx::Stream stream, float cap, const KlOptions& options)
      : CpuPrimitive(stream), cap_(cap), options_(options) {}

  const char* name() const override {
    return "pennyweight::KlTop";
  }

 protected:
  // Inputs are values and the reference's.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto values = without_gaps(inputs[0]);
    const auto reference = with_even_rows(inputs[1]);
    allocate(out);
    const kernels::KlTopArgs args{
        .rows = values.shape(0),
        .count = values.shape(1),
        .temperature = options_.temperature,
        .cap = cap_,
        .factor = options_.factor,
        .values = values.data<float>(),
        .reference = matrix_of(reference),
        .loss = out.data<float>(),
        .gradient = out.data<float>() + values.shape(0)};
    return [args] { kernels::kl_top(args); };
  }

 private:
  float cap_;
  KlOptions options_;
};

class SpreadSlopes : public CpuPrimitive {
 public:
  SpreadSlopes(mx::Stream stream, int first)
      : CpuPrimitive(stream), first_(first) {}

  const char* name() const override {
    return "pennyweight::SpreadSlopes";
  }

 protected:
  // Inputs are slopes and columns.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto slopes = without_gaps(inputs[0]);
    const auto columns = without_gaps(inputs[1]);
    allocate(out);
    const kernels::SpreadTopArgs args{
        .places =
            {slopes.shape(0),
             slopes.shape(1),
             columns.data<uint32_t>(),
             first_,
             out.shape(1)},
        .values = slopes.data<float>(),
        .tile = matrix_of(out)};
    return [args] { kernels::spread_top(args); };
  }

 private:
  int first_;
};

class AddTransposed : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::AddTransposed";
  }

 protected:
  // Inputs are sum, slopes and weight.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto slopes = with_even_rows(inputs[1]);
    const auto weight = with_even_rows(inputs[2]);
    const auto place = go_on(inputs[0], out);
    kernels::MatmulArgs args{
        .m = row_count(slopes),
        .n = weight.shape(1),
        .k = weight.shape(0),
        .x = matrix_of(slopes),
        .weight = matrix_of(weight),
        .weight_by_depth = true};
    args.out = matrix_of(out);
    args.residual = {args.out.data, args.out.type, args.out.stride};
    return [args, place] {
      place.copy();
      kernels::matmul(args);
    };
  }
};

mx::array wide(const mx::array& x) {
  return mx::astype(x, mx::float32);
}

/// Where columns stand in the tile of n from `first` on, and whether they do.
struct PlacesInTile {
  mx::array at, here;

  PlacesInTile(const mx::array& columns, int first, int n)
      : at(mx::subtract(mx::astype(columns, mx::int32), mx::array(first))),
        here(mx::logical_and(
            mx::greater_equal(at, mx::array(0)),
            mx::less(at, mx::array(n)))) {}
};

}  // namespace

mx::array
uncapped_slopes(const mx::array& slopes, const mx::array& logits, float cap) {
  if (cap <= 0) {
    return slopes;
  }
  const auto part = mx::divide(logits, mx::array(cap));
  return mx::multiply(slopes, mx::subtract(mx::array(1.0f), mx::square(part)));
}

mx::array mlx_path::head_logits(const HeadRows& head) {
  return cap_logits(
      mlx_path::linear(head.x, head.weight, head.bias, mx::float32), head.cap);
}

mx::array mlx_path::kl_gradient(
    const mx::array& state,
    const HeadRows& head,
    const HeadRows& reference,
    const KlOptions& options) {
  const mx::array scale(1 / options.temperature);
  const auto logits = head_logits(head);
  const auto chance = [&](const mx::array& z, int side) {
    const auto sum =
        mx::add(state_column(state, side + 1), state_column(state, side + 2));
    const auto away =
        mx::subtract(mx::multiply(z, scale), state_column(state, side));
    return mx::divide(mx::exp(away), sum);
  };
  const auto slopes = mx::multiply(
      mx::subtract(
          chance(logits, kernels::kScoreMax),
          chance(head_logits(reference), kernels::kScoreRefMax)),
      mx::array(options.factor / options.temperature));
  return mx::astype(
      uncapped_slopes(slopes, logits, head.cap), head.weight.dtype());
}

mx::array kl_gradient(
    const mx::array& state,
    const HeadRows& head,
    const HeadRows& reference,
    const KlOptions& options) {
  check_score_linear(
      state, head, reference, mx::zeros({head.x.shape(0)}, mx::int32), 0);
  const auto cpu = cpu_stream();
  if (!cpu) {
    return mlx_path::kl_gradient(state, head, reference, options);
  }
  Arrays inputs{state};
  const auto own = append_side(inputs, head);
  const auto other = append_side(inputs, reference);
  return mx::array(
      {head.x.shape(0), head.weight.shape(0)},
      head.weight.dtype(),
      std::make_shared<KlSlopes>(*cpu, own, other, options),
      std::move(inputs));
}

mx::array pick_logits(
    const mx::array& values,
    const HeadRows& head,
    const mx::array& columns,
    int first) {
  check_linear(head.x, head.weight, head.bias);
  const int n = head.weight.shape(0);
  const auto cpu = cpu_stream();
  if (!cpu) {
    const auto [at, here] = PlacesInTile(columns, first, n);
    const auto inside = mx::clip(at, mx::array(0), mx::array(n - 1));
    return mx::where(
        here,
        mx::take_along_axis(mlx_path::head_logits(head), inside, -1),
        values);
  }
  Arrays inputs{values, columns};
  const auto parts = append_side(inputs, head);
  return mx::array(
      values.shape(),
      mx::float32,
      std::make_shared<PickLogits>(*cpu, parts, first),
      std::move(inputs));
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
  const int count = values.shape(1);
  const auto cpu = cpu_stream();
  if (!cpu) {
    const mx::array scale(1 / options.temperature);
    const auto log_softmax = [&](const mx::array& x) {
      const auto z = mx::multiply(wide(x), scale);
      return mx::subtract(z, mx::logsumexp(z, -1, true));
    };
    const auto own = log_softmax(values);
    const auto target = log_softmax(reference.values);
    const auto slopes = mx::multiply(
        mx::subtract(mx::exp(own), mx::exp(target)),
        mx::array(options.factor / options.temperature));
    return {
        mx::sum(mx::multiply(mx::exp(target), mx::subtract(target, own)), -1),
        uncapped_slopes(slopes, values, cap)};
  }
  const mx::array flat(
      {rows * (1 + count)},
      mx::float32,
      std::make_shared<KlTop>(*cpu, cap, options),
      {values, reference.values});
  return {
      mx::slice(flat, {0}, {rows}),
      mx::reshape(
          mx::slice(flat, {rows}, {rows * (1 + count)}), {rows, count})};
}

mx::array spread_slopes(
    const mx::array& slopes,
    const mx::array& columns,
    int first,
    int n,
    mx::Dtype dtype) {
  const int rows = slopes.shape(0);
  const auto cpu = cpu_stream();
  if (!cpu) {
    // Columns of other tiles go to one more, which is cut off.
    const auto [at, here] = PlacesInTile(columns, first, n);
    const auto spread = mx::put_along_axis(
        mx::zeros({rows, n + 1}),
        mx::where(here, at, mx::array(n)),
        slopes,
        -1);
    return mx::astype(mx::slice(spread, {0, 0}, {rows, n}), dtype);
  }
  return mx::array(
      {rows, n},
      dtype,
      std::make_shared<SpreadSlopes>(*cpu, first),
      {slopes, columns});
}

mx::array add_transposed(
    const mx::array& sum,
    const mx::array& slopes,
    const mx::array& weight) {
  const auto cpu = cpu_stream();
  if (!cpu) {
    return mx::add(sum, mx::matmul(wide(slopes), wide(weight)));
  }
  return mx::array(
      sum.shape(),
      mx::float32,
      std::make_shared<AddTransposed>(*cpu),
      {sum, slopes, weight});
}

mx::array slopes_by_x(const mx::array& slopes, const mx::array& x) {
  if (const auto cpu = cpu_stream()) {
    return cpu_path::weight_gradient(slopes, x, *cpu);
  }
  return mx::matmul(mx::transpose(wide(slopes)), wide(x));
}

}  // namespace pennyweight::ops
