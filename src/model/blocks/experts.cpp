// A mixture of experts: which take which tokens, and what they make of them
// (MoeSpec).

#include <mlx/ops.h>

#include <array>
#include <cmath>

#include "model/blocks/mlp_parts.h"
#include "ops/expert_linear.h"
#include "ops/expert_rows.h"

namespace pennyweight {

namespace {

std::vector<ops::ExpertWeight> stack_of(
    const BlockWeights& weights,
    const LinearSpec& linear) {
  std::vector<ops::ExpertWeight> experts;
  for (int64_t i = 0; i < linear.count; ++i) {
    const auto& own = weights.linears.at(part_path(linear.path, i));
    experts.push_back({own.dense, own.packed, own.bias});
  }
  return experts;
}

// Takes rows x [rows, in], sorted by expert, through the experts' linears.
mx::array apply_stack(
    const BlockWeights& weights,
    const LinearSpec& linear,
    const mx::array& x,
    const mx::array& expert,
    std::optional<mx::Dtype> out_dtype = std::nullopt) {
  const auto y =
      ops::expert_linear(x, stack_of(weights, linear), expert, out_dtype);
  // The trace of the first expert stands for those of all.
  const auto& trace = weights.linears.at(part_path(linear.path, 0)).trace;
  if (trace) {
    trace->expert = expert;
  }
  return watched(trace, x, y);
}

// Sets the scores of experts outside of the best groups to 0, as mlx-lm does.
mx::array keep_best_groups(const MoeSpec& spec, const mx::array& choice) {
  const int drop = spec.groups - spec.chosen_groups;
  if (drop <= 0) {
    return choice;
  }
  const int tokens = choice.shape(0);
  auto grouped =
      mx::reshape(choice, {tokens, spec.groups, spec.count / spec.groups});
  auto best = spec.two_highest ? mx::sum(mx::topk(grouped, 2, -1), -1, true)
                               : mx::max(grouped, -1, true);
  auto dropped = mx::slice(
      mx::argpartition(mx::stop_gradient(best), drop - 1, 1),
      {0, 0, 0},
      {tokens, drop, 1});
  grouped = mx::put_along_axis(
      grouped,
      mx::broadcast_to(dropped, {tokens, drop, grouped.shape(2)}),
      mx::array(0.0f),
      1);
  return mx::reshape(grouped, choice.shape());
}

// Shows the range what the experts have made: the outputs of gate, up and down,
// and the input of down.
void see_experts(
    const MlpSpec& spec,
    const BlockWeights& weights,
    const std::optional<mx::array>& gate,
    const std::array<mx::array, 3>& made) {
  if (!weights.range) {
    return;
  }
  const auto& [up, wide, down] = made;
  // gpt_oss clips both outputs, but not the gate's from below.
  const bool clips = spec.activation == Activation::clipped;
  if (gate) {
    weights.see(
        "the output of " + spec.gate.path,
        clips ? mx::minimum(*gate, mx::array(0.0f, gate->dtype())) : *gate);
  }
  if (!clips) {
    weights.see("the output of " + spec.up.path, up);
  }
  weights.see("the input of " + spec.down.path, wide);
  weights.see("the output of " + spec.down.path, down);
}

Routing mix_sparsely(const MoeSpec& spec, const mx::array& logits) {
  const mx::array none(-INFINITY);
  std::vector<mx::array> experts, scores;
  auto masked = logits;
  for (int i = 0; i < spec.chosen; ++i) {
    const auto top = mx::max(masked, -1, true);
    const auto expert = mx::stop_gradient(mx::argmax(masked, -1, true));
    const auto far = mx::divide(
        mx::subtract(top, logits), mx::maximum(mx::abs(logits), top));
    const auto band =
        mx::where(mx::greater(far, mx::array(2 * spec.jitter)), none, masked);
    scores.push_back(
        mx::take_along_axis(mx::softmax(band, -1, true), expert, -1));
    experts.push_back(expert);
    masked = mx::put_along_axis(masked, expert, none, -1);
  }
  return {mx::concatenate(experts, -1), mx::concatenate(scores, -1)};
}

}  // namespace

mx::array mix_experts(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const Routing& routing) {
  auto flat = mx::flatten(routing.experts);
  const auto slot = mx::argsort(flat);
  const ops::RowOrder order{
      slot, mx::reshape(mx::argsort(slot), routing.experts.shape())};
  auto expert = mx::take(flat, slot);
  auto x = ops::rows_of_slots(expert_source(spec, weights, input), order);
  std::optional<mx::array> gate;
  if (spec.experts.gated) {
    gate = apply_stack(weights, spec.experts.gate, x, expert);
  }
  auto up = apply_stack(weights, spec.experts.up, x, expert);
  auto wide =
      gate ? activated(spec.experts.activation, *gate, up) : ops::relu2(up);
  auto down =
      apply_stack(weights, spec.experts.down, wide, expert, mx::float32);
  see_experts(spec.experts, weights, gate, {up, wide, down});
  return ops::mix_slots(down, order, routing.scores);
}

mx::array experts_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  return spec.moe->norm ? normed(*spec.moe->norm, weights, x, context.dtype)
                        : mlp_input(spec, weights, x, context);
}

mx::array router_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  const auto& scale = spec.moe->router_scale;
  if (!scale) {
    return mlp_input(spec, weights, x, context);
  }
  const float root = 1 / std::sqrt(static_cast<float>(x.shape(-1)));
  return ops::rms_norm(
      x,
      mx::multiply(weights.parameters.at(scale->name), mx::array(root)),
      spec.moe->router_eps,
      context.dtype);
}

Routing route(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  const auto logits = weights.linears.at(spec.router.path)(input, mx::float32);
  const bool sigmoid = spec.scores == MoeSpec::Scores::sigmoid;
  if (weights.range && !sigmoid) {
    weights.see(
        "the output of " + spec.router.path,
        mx::maximum(logits, mx::array(0.0f)));
  }
  if (spec.scores == MoeSpec::Scores::sparse_mixer) {
    return mix_sparsely(spec, logits);
  }
  const auto all = spec.scores == MoeSpec::Scores::softmax
      ? mx::softmax(logits, -1, true)
      : sigmoid ? mx::sigmoid(logits)
                : logits;
  auto choice = all;
  if (spec.correction) {
    choice = mx::add(choice, weights.parameters.at(spec.correction->name));
  }
  choice = keep_best_groups(spec, choice);
  auto experts = mx::slice(
      mx::argpartition(
          mx::stop_gradient(mx::negative(choice)), spec.chosen - 1, -1),
      {0, 0},
      {input.shape(0), spec.chosen});
  // Without a sigmoid or a correction the scores themselves are those of which
  // groups were left out.
  const bool plain = sigmoid || spec.correction;
  auto scores = mx::take_along_axis(plain ? all : choice, experts, -1);
  if (spec.scores == MoeSpec::Scores::chosen_softmax) {
    scores = mx::softmax(scores, -1, true);
  }
  if (spec.normalize) {
    auto sum = mx::sum(scores, -1, true);
    if (spec.normalize_eps != 0) {
      sum = mx::add(sum, mx::array(spec.normalize_eps));
    }
    scores = mx::divide(scores, sum);
  }
  if (spec.scale != 1) {
    scores = mx::multiply(scores, mx::array(spec.scale));
  }
  if (spec.expert_scale) {
    scores = mx::multiply(
        scores,
        mx::take(weights.parameters.at(spec.expert_scale->name), experts));
  }
  return {experts, scores};
}

mx::array expert_source(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  return spec.latent_in ? weights.linears.at(spec.latent_in->path)(input)
                        : input;
}

mx::array expert_sum(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  return mx::astype(
      mix_experts(spec, weights, input, route(spec, weights, input)),
      input.dtype());
}

mx::array expert_wide(
    const MoeSpec& spec,
    const BlockWeights& weights,
    int64_t expert,
    const mx::array& rows) {
  const auto apply = [&](const LinearSpec& linear) {
    return weights.linears.at(part_path(linear.path, expert))(rows);
  };
  if (!spec.experts.gated) {
    return ops::relu2(apply(spec.experts.up));
  }
  return activated(
      spec.experts.activation,
      apply(spec.experts.gate),
      apply(spec.experts.up));
}

}  // namespace pennyweight
