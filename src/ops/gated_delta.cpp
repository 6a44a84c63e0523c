#include "ops/gated_delta.h"

#include <mlx/fast.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>
#include <utility>

#include "ops/check.h"
#include "ops/mlx_path.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;

mx::array as_float(const mx::array& x) {
  return mx::astype(x, mx::float32);
}

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

class GatedDeltaBase : public CpuPrimitive {
 protected:
  using CpuPrimitive::CpuPrimitive;

  /// But for where the result goes.
  kernels::GatedDeltaArgs arguments(const Arrays& inputs) {
    const auto q = with_dense_last_axis(inputs[0]);
    const auto k = with_dense_last_axis(inputs[1]);
    const auto v = with_dense_last_axis(inputs[2]);
    const auto g = without_gaps(inputs[3]);
    const auto beta = without_gaps(inputs[4]);
    return {
        .batch = v.shape(0),
        .length = v.shape(1),
        .heads = v.shape(2),
        .key_heads = q.shape(2),
        .key_dim = q.shape(3),
        .value_dim = v.shape(3),
        .type = kernel_type(q.dtype()),
        .value_type = kernel_type(v.dtype()),
        .q = heads_view(q),
        .k = heads_view(k),
        .v = heads_view(v),
        .g = g.data<float>(),
        .beta = beta.data<float>()};
  }
};

/// From the inputs of GatedDelta and the gradient by its result: those by its
/// inputs, as kernels::GatedDeltaBackwardArgs lays them out.
class GatedDeltaBackward : public GatedDeltaBase {
 public:
  using GatedDeltaBase::GatedDeltaBase;

  const char* name() const override {
    return "pennyweight::GatedDeltaBackward";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto dy = without_gaps(inputs[5]);
    allocate(out);
    const kernels::GatedDeltaBackwardArgs args{
        arguments(inputs), dy.data<void>(), out.data<float>()};
    return [args] { kernels::gated_delta_backward(args); };
  }
};

class GatedDelta : public GatedDeltaBase {
 public:
  using GatedDeltaBase::GatedDeltaBase;

  const char* name() const override {
    return "pennyweight::GatedDelta";
  }

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    const auto& v = primals[2];
    Arrays inputs = primals;
    inputs.push_back(mx::astype(cotangents[0], v.dtype()));
    const int batch = v.shape(0);
    const int length = v.shape(1);
    std::vector<int> firsts{0};  // of each input in what a token has
    for (const auto& primal : primals) {
      firsts.push_back(firsts.back() + int(primal.size()) / (batch * length));
    }
    const mx::array all(
        {batch, length, firsts.back()},
        mx::float32,
        std::make_shared<GatedDeltaBackward>(stream()),
        std::move(inputs));
    Arrays gradients;
    for (const int arg : argnums) {
      const auto& primal = primals[size_t(arg)];
      const auto part = mx::slice(
          all,
          {0, 0, firsts[size_t(arg)]},
          {batch, length, firsts[size_t(arg) + 1]});
      gradients.push_back(
          mx::astype(mx::reshape(part, primal.shape()), primal.dtype()));
    }
    return gradients;
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    auto args = arguments(inputs);
    allocate(out);
    args.out = out.data<void>();
    return [args] { kernels::gated_delta(args); };
  }
};

class CausalConv : public CpuPrimitive {
 public:
  CausalConv(mx::Stream stream, bool silu)
      : CpuPrimitive(stream), silu_(silu) {}

  const char* name() const override {
    return "pennyweight::CausalConv";
  }

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    if (argnums == std::vector<int>{0}) {
      return {by_input(primals[0], primals[1], cotangents[0])};
    }
    return vjp_through(
        [this](const Arrays& x) {
          return mlx_path::causal_conv(x[0], x[1], silu_);
        },
        primals,
        cotangents,
        argnums);
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_dense_last_axis(inputs[0]);
    const auto weight = without_gaps(inputs[1]);
    allocate(out);
    const kernels::CausalConvArgs args{
        .batch = x.shape(0),
        .length = x.shape(1),
        .channels = x.shape(2),
        .width = weight.shape(1),
        .silu = silu_,
        .type = kernel_type(x.dtype()),
        .x = x.data<void>(),
        .x_batch_stride = x.strides(0),
        .x_row_stride = x.strides(1),
        .weight = vector_of(weight),
        .out = out.data<void>()};
    return [args] { kernels::causal_conv(args); };
  }

 private:
  /// What a position gives is given back to it by the positions behind it: a
  /// convolution of the sums' gradient, time reversed.
  mx::array by_input(
      const mx::array& x,
      const mx::array& weight,
      const mx::array& cotangent) const {
    auto by_sums = as_float(cotangent);
    if (silu_) {
      const auto sums = ops::causal_conv(as_float(x), weight);
      const auto ones = mx::broadcast_to(mx::array(1.0f), sums.shape());
      by_sums = mx::vjp(
                    [&](const Arrays& gate) {
                      return Arrays{swiglu(gate[0], mx::contiguous(ones))};
                    },
                    {sums},
                    {by_sums})
                    .second[0];
    }
    const auto reversed = [](const mx::array& y) {
      return mx::slice(
          y,
          {0, y.shape(1) - 1, 0},
          {y.shape(0), -y.shape(1) - 1, y.shape(2)},
          {1, -1, 1});
    };
    return mx::astype(
        reversed(ops::causal_conv(
            mx::contiguous(reversed(by_sums)), as_float(weight))),
        x.dtype());
  }

  bool silu_;
};

}  // namespace

mx::array mlx_path::gated_delta(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& g,
    const mx::array& beta) {
  // MLX 0.32.4 rounds g and beta to the type of q.
  const auto result = mx::fast::gated_delta_update(
      as_float(q), as_float(k), as_float(v), g, beta);
  return mx::astype(result[0], v.dtype());
}

mx::array
mlx_path::causal_conv(const mx::array& x, const mx::array& weight, bool silu) {
  const int channels = x.shape(2);
  const int width = weight.shape(1);
  // Zeros stand on both sides: what the end saw of them is cut off.
  auto sums = mx::conv1d(
      as_float(x),
      mx::expand_dims(as_float(weight), 2),
      1,
      width - 1,
      1,
      channels);
  sums = mx::slice(sums, {0, 0, 0}, x.shape());
  if (silu) {
    sums = mx::multiply(sums, mx::sigmoid(sums));
  }
  return mx::astype(sums, x.dtype());
}

mx::array gated_delta(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& g,
    const mx::array& beta) {
  check_gated_delta(q, k, v, g, beta);
  if (const auto cpu = cpu_stream()) {
    return mx::array(
        v.shape(),
        v.dtype(),
        std::make_shared<GatedDelta>(*cpu),
        Arrays{q, k, v, g, beta});
  }
  return mlx_path::gated_delta(q, k, v, g, beta);
}

mx::array causal_conv(const mx::array& x, const mx::array& weight, bool silu) {
  const char* where = "causal_conv";
  require_floating(x, where, "x");
  require_floating(weight, where, "weight");
  require(
      x.ndim() == 3 && weight.ndim() == 2 && x.shape(2) == weight.shape(0) &&
          weight.shape(1) > 0,
      where,
      "x " + describe(x) + " is not [batch, length, channels] for the weight " +
          describe(weight) + " [channels, width]");
  if (const auto cpu = cpu_stream()) {
    return mx::array(
        x.shape(),
        x.dtype(),
        std::make_shared<CausalConv>(*cpu, silu),
        Arrays{x, weight});
  }
  return mlx_path::causal_conv(x, weight, silu);
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
  const auto step =
      mx::logaddexp(mx::add(as_float(a), as_float(dt_bias)), mx::array(0.0f));
  const auto rate = mx::negative(mx::exp(as_float(a_log)));
  return {mx::exp(mx::multiply(rate, step)), mx::sigmoid(as_float(b))};
}

}  // namespace pennyweight::ops
