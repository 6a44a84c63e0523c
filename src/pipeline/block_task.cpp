#include "pipeline/block_task.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "checkpoint/checkpoint.h"
#include "core/error.h"

namespace pennyweight {

namespace {

InputStatistics sum_over(const Ranks& ranks, InputStatistics sums) {
  if (ranks.size() == 1) {
    return sums;
  }
  sums.tokens = static_cast<int64_t>(ranks.sum(double(sums.tokens)));
  sums.hessian = ranks.sum(sums.hessian);
  if (sums.input_shift) {
    sums.input_shift = ranks.sum(*sums.input_shift);
  }
  if (sums.output_shift) {
    sums.output_shift = ranks.sum(*sums.output_shift);
  }
  return sums;
}

// The mean of the ratio over a batch's tokens, times their count.
double error_sum(
    const TokenBatch& batch,
    const mx::array& y,
    const mx::array& y_full) {
  auto wanted = pick_tokens(batch, y_full);
  auto error = mx::square(mx::subtract(pick_tokens(batch, y), wanted));
  auto ratio = mx::divide(
      mx::sum(error, -1),
      mx::maximum(mx::sum(mx::square(wanted), -1), mx::array(1e-30f)));
  return mx::sum(ratio).item<float>();
}

}  // namespace

std::vector<LinearGroup> list_groups(
    const BlockSpec& block,
    const QuantPlan& plan) {
  std::vector<LinearGroup> groups;
  std::string input;
  size_t step = 0;
  for (const ModuleSpec& module : list_modules(block)) {
    if (module.input_id != input) {
      input = module.input_id;
      groups.push_back({block_steps().at(step++), {}});
    }
    if (plan.at(module.path).spec) {
      groups.back().modules.push_back(module);
    }
  }
  std::erase_if(
      groups, [](const auto& group) { return group.modules.empty(); });
  return groups;
}

WalkTask::WalkTask(const WalkState& state, const BlockSpec& spec)
    : state_(state),
      spec_(spec),
      groups_(list_groups(spec, state.plan)),
      full_weights_(load_block(state.model, spec.index, state.model.dtype)),
      weights_(full_weights_) {
  for (const auto& [path, linear] : full_weights_.linears) {
    auto dense = *linear.dense;
    mx::eval(dense);
    require_finite(dense, path + ".weight");
  }
  state_.full.enter(spec_, full_weights_);
  if (state_.quantized) {
    state_.quantized->enter(spec_, weights_);
  }
}

const QuantSpec& WalkTask::quant_spec(const std::string& path) const {
  return *state_.plan.at(path).spec;
}

mx::array WalkTask::weight(const std::string& path) const {
  auto dense = mx::contiguous(
      mx::astype(*full_weights_.linears.at(path).dense, mx::float32));
  mx::eval(dense);
  return dense;
}

InputStatistics WalkTask::statistics(const LinearGroup& group) {
  // Asks whether to go on, too.
  auto blocks = static_cast<int64_t>(state_.model.spec.blocks.size());
  report(state_.progress, {state_.stage, spec_.index, blocks, "blocks"});
  for (BlockStep step : block_steps()) {
    if (step == group.step) {
      break;
    }
    move_past(step);
  }
  ++next_step_;
  bool apart = state_.quantized != nullptr;
  return sum_over(
      state_.ranks,
      collect_statistics(
          apart ? *state_.quantized : state_.full,
          apart ? &state_.full : nullptr,
          state_.batches,
          state_.fit_batches,
          group.step,
          static_cast<int>(group.modules.front().in)));
}

// Takes the streams through a step that no statistics were asked of.
void WalkTask::move_past(BlockStep step) {
  if (static_cast<size_t>(step) < next_step_) {
    return;
  }
  ++next_step_;
  for (size_t i = 0; i < state_.batches.size(); ++i) {
    mx::eval(state_.full.step_input(step, i));
    if (state_.quantized) {
      mx::eval(state_.quantized->step_input(step, i));
    }
  }
}

// Both streams at the block's output, by the weights set until now.
void WalkTask::complete() {
  if (completed_) {
    return;
  }
  for (BlockStep step : block_steps()) {
    move_past(step);
  }
  for (size_t i = 0; i < state_.batches.size(); ++i) {
    state_.full.finish(i);
    if (state_.quantized) {
      state_.quantized->finish(i);
    }
  }
  completed_ = true;
}

BlockWeights WalkTask::with(const PackedBlock& weights) const {
  BlockWeights block = full_weights_;
  for (const auto& [path, packed] : weights) {
    block.linears.at(path).dense = ops::dequantize(packed, dtype());
  }
  return block;
}

double WalkTask::held_out_error(const PackedBlock& weights) {
  complete();
  auto block = with(weights);
  ForwardContext context{.dtype = dtype()};
  double error = 0;
  double tokens = 0;
  for (size_t i = state_.fit_batches; i < state_.batches.size(); ++i) {
    auto y = run_block(spec_, block, state_.quantized->start(i), context);
    error += error_sum(state_.batches[i], y, state_.full.output(i));
    tokens += double(state_.batches[i].count);
  }
  return state_.ranks.sum(error) / state_.ranks.sum(tokens);
}

void WalkTask::set(
    const std::string& path,
    const ops::QuantizedWeight& weight) {
  packed_.insert_or_assign(path, weight);
  auto dense = ops::dequantize(weight, dtype());
  mx::eval(dense);
  weights_.linears.at(path).dense = dense;
  changed_ = completed_;
}

void WalkTask::finish() {
  for (const LinearGroup& group : groups_) {
    for (const ModuleSpec& module : group.modules) {
      if (!packed_.contains(module.path)) {
        throw Error(
            ErrorCode::invalid_argument,
            "walk",
            module.path + " was left unquantized by its method");
      }
    }
  }
  complete();
  if (changed_ && state_.quantized) {
    state_.quantized->run();
  }
  state_.full.leave();
  if (state_.quantized) {
    state_.quantized->leave();
  }
}

}  // namespace pennyweight
