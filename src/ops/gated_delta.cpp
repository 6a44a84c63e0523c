#include "ops/gated_delta.h"

#include <mlx/fast.h>
#include <mlx/ops.h>

#include <algorithm>
#include <cmath>

#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

void check_gated_delta(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& g,
    const mx::array& beta) {
  const char* where = "gated_delta";
  require_floating(q, where, "q");
  require_floating(v, where, "v");
  require(
      q.ndim() == 4 && v.ndim() == 4 && k.shape() == q.shape() &&
          k.dtype() == q.dtype() && q.shape(0) == v.shape(0) &&
          q.shape(1) == v.shape(1) && q.shape(2) > 0 &&
          v.shape(2) % q.shape(2) == 0,
      where,
      "q " + describe(q) + ", k " + describe(k) + ", v " + describe(v) +
          " do not fit together");
  const mx::Shape gates{v.shape(0), v.shape(1), v.shape(2)};
  require(
      g.shape() == gates && g.dtype() == mx::float32 && beta.shape() == gates &&
          beta.dtype() == mx::float32,
      where,
      "g " + describe(g) + " and beta " + describe(beta) +
          " are not one float32 for each head of v " + describe(v));
}

/// The kernel's arguments but for the result, from the inputs q, k, v, g,
/// beta and, by the sum rule, skip.
kernels::GatedDeltaArgs arguments(CpuWork& work, kernels::ScanRule rule) {
  kernels::GatedDeltaArgs args{
      .batch = work.size(2, 0),
      .length = work.size(2, 1),
      .heads = work.size(2, 2),
      .key_heads = work.size(0, 2),
      .key_dim = work.size(0, 3),
      .value_dim = work.size(2, 3),
      .type = work.type(0),
      .value_type = work.type(2),
      .q = work.heads(0),
      .k = work.heads(1),
      .v = work.heads(2),
      .g = work.data<float>(3),
      .beta = work.data<float>(4),
      .rule = rule};
  if (rule == kernels::ScanRule::sum) {
    args.skip = work.data<float>(5);
  }
  return args;
}

/// The gradients by all inputs but skip, [batch, length, n]: for each token
/// those by q, k, v, g and beta one after the other (see
/// kernels::GatedDeltaBackwardArgs).
mx::array backward(
    const Arrays& inputs,
    const mx::array& dy,
    int n,
    kernels::ScanRule rule) {
  const auto& v = inputs[2];
  Arrays all = inputs;
  all.push_back(mx::astype(dy, v.dtype()));
  return make({
      .name = "gated_delta_backward",
      .shape = {v.shape(0), v.shape(1), n},
      .dtype = mx::float32,
      .inputs = std::move(all),
      .cpu = [rule](CpuWork& work) -> Task {
        const kernels::GatedDeltaBackwardArgs args{
            .forward = arguments(work, rule),
            .dy = work.vector(work.count() - 1).data,
            .out = static_cast<float*>(work.result().data)};
        return [args] { kernels::gated_delta_backward(args); };
      },
  });
}

GradientOf
gradients(const Arrays& in, const mx::array& dy, kernels::ScanRule rule) {
  const int tokens = in[2].shape(0) * in[2].shape(1);
  std::vector<int> firsts{0};  // where each input's part of a token begins
  for (size_t i = 0; i < 5; ++i) {
    firsts.push_back(firsts.back() + int(in[i].size()) / tokens);
  }
  const auto all = backward(in, dy, firsts.back(), rule);
  return [=](size_t i) {
    const auto part = mx::slice(
        all, {0, 0, firsts[i]}, {all.shape(0), all.shape(1), firsts[i + 1]});
    return mx::astype(mx::reshape(part, in[i].shape()), in[i].dtype());
  };
}

}  // namespace

mx::array gated_delta(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& g,
    const mx::array& beta) {
  check_gated_delta(q, k, v, g, beta);
  return make({
      .name = "gated_delta",
      .shape = v.shape(),
      .dtype = v.dtype(),
      .inputs = {q, k, v, g, beta},
      .fallback =
          [](const Arrays& in) {
            // MLX 0.32.4 rounds g and beta to the type of q.
            const auto result = mx::fast::gated_delta_update(
                as_float32(in[0]),
                as_float32(in[1]),
                as_float32(in[2]),
                in[3],
                in[4]);
            return mx::astype(result[0], in[2].dtype());
          },
      .cpu = [](CpuWork& work) -> Task {
        auto args = arguments(work, kernels::ScanRule::delta);
        args.out = work.result().data;
        return [args] { kernels::gated_delta(args); };
      },
      .vjp = [](const Arrays& in, const mx::array& dy) -> GradientOf {
        return gradients(in, dy, kernels::ScanRule::delta);
      },
  });
}

namespace {

void check_scan(const Arrays& in) {
  const char* where = "ssd_scan";
  const auto &c = in[0], &b = in[1], &x = in[2];
  const auto &rate = in[3], &dt = in[4], &skip = in[5];
  require_floating(c, where, "c");
  require_floating(x, where, "x");
  require(
      c.ndim() == 4 && x.ndim() == 4 && b.shape() == c.shape() &&
          b.dtype() == c.dtype() && c.shape(0) == x.shape(0) &&
          c.shape(1) == x.shape(1) && c.shape(2) > 0 &&
          x.shape(2) % c.shape(2) == 0,
      where,
      "c " + describe(c) + ", b " + describe(b) + ", x " + describe(x) +
          " do not fit together");
  const mx::Shape steps{x.shape(0), x.shape(1), x.shape(2)};
  require(
      rate.shape() == steps && rate.dtype() == mx::float32 &&
          dt.shape() == steps && dt.dtype() == mx::float32 &&
          skip.shape() == mx::Shape{x.shape(2)} && skip.dtype() == mx::float32,
      where,
      "rate " + describe(rate) + ", dt " + describe(dt) + ", skip " +
          describe(skip) + " are not float32 for each head of x " +
          describe(x));
}

/// [length, length]: what is left of token j's part at token i, exp of the sum
/// of the rates of the tokens behind j up to i; 0 for tokens behind i. rates
/// [..., length].
mx::array decays(const mx::array& rates) {
  auto shape = rates.shape();
  const int length = shape.back();
  shape.push_back(length);
  const auto each = mx::broadcast_to(mx::expand_dims(rates, -1), shape);
  const auto sums = mx::cumsum(mx::tril(each, -1), -2);
  return mx::tril(mx::exp(sums));
}

/// The scan of all tokens in chunks: within a chunk as attention whose scores
/// decay, from chunk to chunk by the state.
mx::array scan_by_mlx(const Arrays& in) {
  constexpr int kChunk = 64;
  const auto& x = in[2];
  const int batch = x.shape(0), length = x.shape(1), heads = x.shape(2);
  const int group = heads / in[0].shape(2);
  // [batch, heads, length, size]
  const auto by_head = [&](const mx::array& own, int times) {
    return mx::repeat(mx::swapaxes(as_float32(own), 1, 2), times, 1);
  };
  const auto c = by_head(in[0], group), b = by_head(in[1], group);
  const auto value = by_head(x, 1);
  const auto rate = mx::swapaxes(in[3], 1, 2);
  const auto fed =
      mx::multiply(value, mx::expand_dims(mx::swapaxes(in[4], 1, 2), -1));
  const auto some = [&](const mx::array& own, int first, int end) {
    auto start = mx::Shape(own.ndim(), 0);
    auto stop = own.shape();
    start[2] = first;
    stop[2] = end;
    return mx::slice(own, start, stop);
  };
  auto state = mx::zeros({batch, heads, x.shape(3), c.shape(3)});
  Arrays parts;
  for (int first = 0; first < length; first += kChunk) {
    const int end = std::min(length, first + kChunk);
    const auto keys = some(b, first, end), queries = some(c, first, end);
    const auto values = some(fed, first, end);
    const auto left = decays(some(rate, first, end));
    const auto passed =
        mx::expand_dims(mx::exp(mx::cumsum(some(rate, first, end), -1)), -1);
    const auto scores =
        mx::multiply(mx::matmul(queries, mx::swapaxes(keys, -1, -2)), left);
    parts.push_back(mx::add(
        mx::matmul(scores, values),
        mx::multiply(
            passed, mx::matmul(queries, mx::swapaxes(state, -1, -2)))));
    const int last = end - first - 1;
    const auto kept = mx::swapaxes(some(left, last, last + 1), -1, -2);
    state = mx::add(
        mx::multiply(some(passed, last, last + 1), state),
        mx::matmul(mx::swapaxes(mx::multiply(values, kept), -1, -2), keys));
  }
  const auto skip = mx::reshape(in[5], {1, heads, 1, 1});
  const auto y =
      mx::add(mx::concatenate(std::move(parts), 2), mx::multiply(skip, value));
  return mx::astype(mx::swapaxes(y, 1, 2), x.dtype());
}

}  // namespace

mx::array ssd_scan(
    const mx::array& c,
    const mx::array& b,
    const mx::array& x,
    const mx::array& rate,
    const mx::array& dt,
    const mx::array& skip) {
  Arrays inputs{c, b, x, rate, dt, skip};
  check_scan(inputs);
  return make({
      .name = "ssd_scan",
      .shape = x.shape(),
      .dtype = x.dtype(),
      .inputs = std::move(inputs),
      .fallback = scan_by_mlx,
      .cpu = [](CpuWork& work) -> Task {
        auto args = arguments(work, kernels::ScanRule::sum);
        args.out = work.result().data;
        return [args] { kernels::gated_delta(args); };
      },
      .vjp = [](const Arrays& in, const mx::array& dy) -> GradientOf {
        const auto by_others = gradients(in, dy, kernels::ScanRule::sum);
        return [=](size_t i) {
          if (i < 5) {
            return by_others(i);
          }
          return mx::sum(
              mx::multiply(as_float32(dy), as_float32(in[2])),
              std::vector<int>{0, 1, 3});
        };
      },
  });
}

QueriesAndKeys
normalize_keys(const mx::array& q, const mx::array& k, float eps) {
  const char* where = "normalize_keys";
  require(
      q.ndim() >= 1 && k.ndim() >= 1 && q.shape(-1) == k.shape(-1) &&
          q.shape(-1) > 0,
      where,
      "q " + describe(q) + " and k " + describe(k) +
          " do not share a last axis");
  // rms_norm divides by the root of a mean, which is sqrt(dim) smaller.
  const int dim = q.shape(-1);
  const float scale = 1.0f / std::sqrt(float(dim));
  const auto weight = [&](float value) { return mx::full({dim}, value); };
  return {
      rms_norm(q, weight(scale * scale), eps / float(dim)),
      rms_norm(k, weight(scale), eps / float(dim))};
}

DeltaGates delta_gates(
    const mx::array& a,
    const mx::array& b,
    const mx::array& a_log,
    const mx::array& dt_bias) {
  const char* where = "delta_gates";
  require_floating(a, where, "a");
  require_floating(b, where, "b");
  require_floating(a_log, where, "a_log");
  require_floating(dt_bias, where, "dt_bias");
  require(
      a.ndim() == 3 && b.shape() == a.shape() &&
          a_log.shape() == mx::Shape{a.shape(2)} &&
          dt_bias.shape() == a_log.shape(),
      where,
      "a " + describe(a) + ", b " + describe(b) + ", a_log " + describe(a_log) +
          ", dt_bias " + describe(dt_bias) + " do not fit together");
  const auto step = mx::logaddexp(
      mx::add(as_float32(a), as_float32(dt_bias)), mx::array(0.0f));
  const auto rate = mx::negative(mx::exp(as_float32(a_log)));
  return {mx::exp(mx::multiply(rate, step)), mx::sigmoid(as_float32(b))};
}

}  // namespace pennyweight::ops
