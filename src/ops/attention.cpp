#include <mlx/fast.h>
#include <mlx/ops.h>

#include <limits>

#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

void check_attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  const char* where = "attention";
  require_floating(q, where, "q");
  const bool alike = k.dtype() == q.dtype() && v.dtype() == q.dtype() &&
      q.ndim() == 4 && k.ndim() == 4 && k.shape() == v.shape();
  require(
      alike && q.shape(0) == k.shape(0) && q.shape(3) == k.shape(3) &&
          k.shape(2) > 0 && q.shape(2) % k.shape(2) == 0 &&
          q.shape(1) <= k.shape(1),
      where,
      "q " + describe(q) + ", k " + describe(k) + ", v " + describe(v) +
          " do not fit together");
  require(options.window >= 0, where, "the window is negative");
  require(options.cap >= 0, where, "the cap is negative");
  require(
      !options.sinks ||
          (options.sinks->dtype() == mx::float32 &&
           options.sinks->shape() == mx::Shape{q.shape(2)}),
      where,
      "the sinks have to be float32, one for each head");
}

mx::array window_mask(int queries, int keys, const AttentionOptions& options) {
  const auto row =
      mx::expand_dims(mx::arange(keys - queries, keys, mx::int32), 1);
  const auto column = mx::expand_dims(mx::arange(0, keys, mx::int32), 0);
  const auto distance = row - column;
  const auto window = mx::array(options.window, mx::int32);
  auto mask = mx::abs(distance) < window;
  if (options.causal) {
    const auto zero = mx::array(0, mx::int32);
    mask = mask && distance >= zero;
  }
  return mask;
}

// With every score in memory, since MLX's own attention knows no cap.
mx::array capped_attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  const int group = q.shape(2) / k.shape(2);
  const auto heads_first = [&](const mx::array& x, int repeat) {
    auto wide = mx::transpose(mx::astype(x, mx::float32), {0, 2, 1, 3});
    return repeat == 1 ? wide : mx::repeat(wide, repeat, 1);
  };
  const auto cap = mx::array(options.cap);
  auto scores =
      mx::matmul(
          heads_first(q, 1), mx::swapaxes(heads_first(k, group), -1, -2)) *
      mx::array(options.scale / options.cap);
  scores = cap * mx::tanh(scores);
  if (options.causal || options.window > 0) {
    auto seen = options;
    seen.window = options.window > 0 ? options.window : k.shape(1);
    scores = mx::where(
        window_mask(q.shape(1), k.shape(1), seen),
        scores,
        mx::array(-std::numeric_limits<float>::infinity()));
  }
  if (options.sinks) {
    auto sinks = mx::broadcast_to(
        mx::reshape(*options.sinks, {1, q.shape(2), 1, 1}),
        {q.shape(0), q.shape(2), q.shape(1), 1});
    scores = mx::concatenate({scores, sinks}, -1);
  }
  auto weights = mx::softmax(scores, -1, true);
  weights = mx::slice(
      weights, {0, 0, 0, 0}, {q.shape(0), q.shape(2), q.shape(1), k.shape(1)});
  auto mixed = mx::matmul(weights, heads_first(v, group));
  return mx::astype(mx::transpose(mixed, {0, 2, 1, 3}), q.dtype());
}

mx::array fused_attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  const bool windowed = options.window > 0 && options.window < k.shape(1);
  std::optional<mx::array> mask;
  if (windowed) {
    mask = window_mask(q.shape(1), k.shape(1), options);
  }
  const auto heads_first = [](const mx::array& x) {
    return mx::transpose(x, {0, 2, 1, 3});
  };
  std::optional<mx::array> sinks;
  if (options.sinks) {
    sinks = mx::astype(*options.sinks, q.dtype());
  }
  return heads_first(mx::fast::scaled_dot_product_attention(
      heads_first(q),
      heads_first(k),
      heads_first(v),
      options.scale,
      options.causal && !windowed ? "causal" : "",
      mask,
      sinks));
}

/// The options of an op without the sinks, which are an input: q, k, v and
/// perhaps the sinks are the first inputs of forward and backward pass.
struct Settings {
  AttentionOptions options;
  bool has_sinks;
};

mx::array by_mlx(const Arrays& in, const Settings& settings) {
  auto options = settings.options;
  if (settings.has_sinks) {
    options.sinks = in[3];
  }
  return options.cap > 0 ? capped_attention(in[0], in[1], in[2], options)
                         : fused_attention(in[0], in[1], in[2], options);
}

kernels::AttentionArgs arguments(CpuWork& work, const Settings& settings) {
  return {
      .batch = work.size(0, 0),
      .length = work.size(0, 1),
      .keys = work.size(1, 1),
      .heads = work.size(0, 2),
      .kv_heads = work.size(1, 2),
      .head_dim = work.size(0, 3),
      .scale = settings.options.scale,
      .causal = settings.options.causal,
      .window = settings.options.window,
      .cap = settings.options.cap,
      .sinks = settings.has_sinks ? work.data<float>(3) : nullptr,
      .type = work.type(0),
      .q = work.heads(0),
      .k = work.heads(1),
      .v = work.heads(2)};
}

/// The gradients by q, k and v, one after the other in one flat array.
mx::array backward(
    const Arrays& inputs,
    const mx::array& dout,
    const Settings& settings) {
  const auto& q = inputs[0];
  const auto in_type = q.dtype();
  const size_t q_size = q.size();
  const size_t k_size = inputs[1].size();
  Arrays all = inputs;
  all.push_back(mx::astype(dout, in_type));
  return make({
      .name = "attention_backward",
      .shape = {int(q_size + 2 * k_size)},
      .dtype = in_type,
      .inputs = std::move(all),
      .cpu = [=](CpuWork& work) -> Task {
        const auto item = kernels::size_of(work.type(0));
        auto* dq = static_cast<char*>(work.result().data);
        const kernels::AttentionBackwardArgs args{
            .forward = arguments(work, settings),
            .dout = work.heads(work.count() - 1),
            .dq = dq,
            .dk = dq + q_size * item,
            .dv = dq + (q_size + k_size) * item};
        return [args] { kernels::attention_backward(args); };
      },
  });
}

}  // namespace

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  check_attention(q, k, v, options);
  Arrays inputs{q, k, v};
  Settings settings{options, options.sinks.has_value()};
  if (options.sinks) {
    inputs.push_back(*options.sinks);
    settings.options.sinks.reset();
  }
  return make({
      .name = "attention",
      .shape = q.shape(),
      .dtype = q.dtype(),
      .inputs = std::move(inputs),
      .fallback = [=](const Arrays& in) { return by_mlx(in, settings); },
      .cpu = [=](CpuWork& work) -> Task {
        auto args = arguments(work, settings);
        args.out = work.result().data;
        return [args] { kernels::attention(args); };
      },
      .vjp = [=](const Arrays& in, const mx::array& dy) -> GradientOf {
        const auto flat = backward(in, dy, settings);
        return [=](size_t i) {
          if (i == 3) {
            const auto whole = [&](const Arrays& all) {
              return by_mlx(all, settings);
            };
            return gradient_through(whole, in, dy)(i);
          }
          int first = 0;
          for (size_t before = 0; before < i; ++before) {
            first += int(in[before].size());
          }
          return mx::reshape(
              mx::slice(flat, {first}, {first + int(in[i].size())}),
              in[i].shape());
        };
      },
  });
}

}  // namespace pennyweight::ops
