#include "ops/cpu_path.h"

#include <mlx/ops.h>

#include "ops/mlx_path.h"
#include "ops/primitive.h"

namespace pennyweight::ops::cpu_path {

namespace {

using Arrays = std::vector<mx::array>;

/// What both directions share: options, and q, k, v and perhaps sinks as the
/// first inputs.
class AttentionBase : public CpuPrimitive {
 public:
  AttentionBase(mx::Stream stream, const AttentionOptions& options)
      : CpuPrimitive(stream), options_(options) {}

 protected:
  kernels::AttentionArgs arguments(const Arrays& inputs, bool has_sinks) {
    const auto q = with_dense_last_axis(inputs[0]);
    const auto k = with_dense_last_axis(inputs[1]);
    const auto v = with_dense_last_axis(inputs[2]);
    return {
        .batch = q.shape(0),
        .length = q.shape(1),
        .keys = k.shape(1),
        .heads = q.shape(2),
        .kv_heads = k.shape(2),
        .head_dim = q.shape(3),
        .scale = options_.scale,
        .causal = options_.causal,
        .window = options_.window,
        .cap = options_.cap,
        .sinks = has_sinks ? without_gaps(inputs[3]).data<float>() : nullptr,
        .type = kernel_type(q.dtype()),
        .q = heads_view(q),
        .k = heads_view(k),
        .v = heads_view(v)};
  }

  AttentionOptions options_;
};

class AttentionBackward : public AttentionBase {
 public:
  using AttentionBase::AttentionBase;

  const char* name() const override {
    return "pennyweight::AttentionBackward";
  }

 protected:
  // Inputs are q, k, v, perhaps sinks, and the result's gradient.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto dout = with_dense_last_axis(inputs.back());
    allocate(out);
    auto* at = out.data<char>();
    kernels::AttentionBackwardArgs args{
        .forward = arguments(inputs, inputs.size() > 4),
        .dout = heads_view(dout),
        .dq = at};
    args.dk = at += inputs[0].nbytes();
    args.dv = at + inputs[1].nbytes();
    return [args] { kernels::attention_backward(args); };
  }
};

class Attention : public AttentionBase {
 public:
  using AttentionBase::AttentionBase;

  const char* name() const override {
    return "pennyweight::Attention";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    allocate(out);
    auto args = arguments(inputs, inputs.size() > 3);
    args.out = out.data<void>();
    return [args] { kernels::attention(args); };
  }

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    // Flat: by q, by k, by v.
    const auto& q = primals[0];
    Arrays inputs = primals;
    inputs.push_back(mx::astype(cotangents[0], q.dtype()));
    const int total = int(q.size() + primals[1].size() + primals[2].size());
    const mx::array flat(
        {total},
        q.dtype(),
        std::make_shared<AttentionBackward>(stream(), options_),
        std::move(inputs));
    Arrays gradients;
    for (int arg : argnums) {
      if (arg == 3) {
        gradients.push_back(by_sinks(primals, cotangents));
        continue;
      }
      int first = 0;
      for (int i = 0; i < arg; ++i) {
        first += int(primals[size_t(i)].size());
      }
      const auto& primal = primals[size_t(arg)];
      gradients.push_back(mx::reshape(
          mx::slice(flat, {first}, {first + int(primal.size())}),
          primal.shape()));
    }
    return gradients;
  }

 private:
  mx::array by_sinks(const Arrays& primals, const Arrays& cotangents) {
    return vjp_through(
        [&](const Arrays& inputs) {
          auto options = options_;
          options.sinks = inputs[3];
          return mlx_path::attention(inputs[0], inputs[1], inputs[2], options);
        },
        primals,
        cotangents,
        {3})[0];
  }
};

}  // namespace

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options,
    mx::Stream stream) {
  Arrays inputs{q, k, v};
  auto kept = options;
  if (options.sinks) {
    inputs.push_back(*options.sinks);
    kept.sinks.reset();
  }
  return mx::array(
      q.shape(),
      q.dtype(),
      std::make_shared<Attention>(stream, kept),
      std::move(inputs));
}

}  // namespace pennyweight::ops::cpu_path
