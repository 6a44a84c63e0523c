#include "ops/gated_delta.h"

#include <mlx/fast.h>
#include <mlx/ops.h>

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

/// The kernel's arguments but for the result, from the inputs q, k, v, g and
/// beta.
kernels::GatedDeltaArgs arguments(CpuWork& work) {
  return {
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
      .beta = work.data<float>(4)};
}

/// The gradients by all inputs, [batch, length, n]: for each token those by q,
/// k, v, g and beta one after the other (see kernels::GatedDeltaBackwardArgs).
mx::array backward(const Arrays& inputs, const mx::array& dy, int n) {
  const auto& v = inputs[2];
  Arrays all = inputs;
  all.push_back(mx::astype(dy, v.dtype()));
  return make({
      .name = "gated_delta_backward",
      .shape = {v.shape(0), v.shape(1), n},
      .dtype = mx::float32,
      .inputs = std::move(all),
      .cpu = [](CpuWork& work) -> Task {
        const kernels::GatedDeltaBackwardArgs args{
            .forward = arguments(work),
            .dy = work.vector(5).data,
            .out = static_cast<float*>(work.result().data)};
        return [args] { kernels::gated_delta_backward(args); };
      },
  });
}

GradientOf gradients(const Arrays& in, const mx::array& dy) {
  const int tokens = in[2].shape(0) * in[2].shape(1);
  std::vector<int> firsts{0};  // where each input's part of a token begins
  for (const auto& input : in) {
    firsts.push_back(firsts.back() + int(input.size()) / tokens);
  }
  const auto all = backward(in, dy, firsts.back());
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
        auto args = arguments(work);
        args.out = work.result().data;
        return [args] { kernels::gated_delta(args); };
      },
      .vjp = gradients,
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
