#include "run/block_task.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <limits>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "method/packed_block.h"
#include "model/stream/columns.h"
#include "ops/evaluated.h"
#include "pass/floats.h"
#include "pass/fold.h"

namespace pennyweight {

namespace {

// The mean of the ratio over a batch's tokens, times their count.
double error_sum(
    const BlockSpec& spec,
    const TokenBatch& batch,
    const mx::array& y,
    const mx::array& y_full) {
  auto wanted = pick_tokens(batch, residual_of(spec, y_full));
  auto error = mx::square(pick_tokens(batch, residual_of(spec, y)) - wanted);
  auto ratio = mx::sum(error, -1) /
      mx::maximum(mx::sum(mx::square(wanted), -1), mx::array(1e-30f));
  return mx::sum(ratio).item<float>();
}

}  // namespace

void StreamWalk::advance() {
  const bool last = next_ == block_steps(stream_.spec()).size();
  if (passed_ < batches_) {
    if (last) {
      stream_.finish(passed_);
    } else {
      stream_.advance(next_, passed_);
    }
    ++passed_;
  }
  if (passed_ == batches_) {
    passed_ = 0;
    at_end_ = last;
    next_ += last ? 0 : 1;
  }
}

void StreamWalk::move_to(size_t step) {
  while (next_ < step) {
    advance();
  }
}

void StreamWalk::pass(size_t step, size_t batch) {
  if (next_ == step && passed_ == batch) {
    advance();
  }
}

void StreamWalk::complete() {
  if (next_ == 0 && passed_ == 0 && !at_end_) {
    stream_.run();
    at_end_ = true;
  }
  while (!at_end_) {
    advance();
  }
}

void StreamWalk::restart() {
  next_ = 0;
  passed_ = 0;
  at_end_ = false;
}

WalkTask::WalkTask(const WalkState& state, const BlockSpec& spec)
    : state_(state),
      spec_(spec),
      groups_(list_groups(spec, state.plan)),
      full_weights_(load_block(
          state.model,
          spec.index,
          state.model.dtype,
          PackedWeights::expand)),
      source_(full_weights_),
      weights_(full_weights_),
      full_(state.full, state.batches.size()) {
  require_finite(full_weights_);
  for (const ModuleSpec& module : list_modules(spec_)) {
    if (state_.plan.at(module.stored).published) {
      published_.insert(module.path);
    }
  }
  state_.full.enter(spec_, full_weights_);
  if (state_.quantized) {
    state_.quantized->enter(spec_, weights_);
    quantized_.emplace(*state_.quantized, state_.batches.size());
  }
}

const QuantSpec& WalkTask::quant_spec(const ModuleSpec& module) const {
  return *state_.plan.at(module.stored).spec;
}

mx::array WalkTask::weight(const std::string& path) const {
  return evaluated(
      mx::contiguous(mx::astype(*source_.linears.at(path).dense, mx::float32)));
}

InputStatistics WalkTask::statistics(
    const LinearGroup& group,
    const StatisticsWanted& wanted) {
  // Asks whether to go on, too.
  auto blocks = static_cast<int64_t>(state_.model.spec.blocks.size());
  report(state_.progress, {state_.stage, spec_.index, blocks, "blocks"});
  const bool shifts = quantized_ && wanted.shifts;
  const bool expert = group.modules.front().expert;
  const size_t to = group.step + (expert ? 1 : 0);
  inputs().move_to(to);
  if (shifts) {
    full_.move_to(to);
  }
  asked_ = index_of(group.modules.front().path) + 1;
  if (expert) {
    return expert_statistics(group, wanted, shifts);
  }
  return summed(collect_statistics(
      inputs().stream(),
      shifts ? &full_.stream() : nullptr,
      state_.batches,
      {group.modules.front(),
       state_.fit_batches,
       wanted.magnitudes,
       divisors_of(group.modules.front())},
      [&](size_t batch) {
        inputs().pass(group.step, batch);
        if (shifts) {
          full_.pass(group.step, batch);
        }
      }));
}

size_t WalkTask::steps_ahead() const {
  return asked_ < groups_.size() ? groups_[asked_].step + 1
                                 : std::numeric_limits<size_t>::max();
}

// The method's work has a thread, and this one, to which all of MLX is left,
// takes the stream on batch by batch for as long as that lasts.
void WalkTask::overlap(const std::function<void()>& work) {
  if (!state_.overlaps) {
    work();
    return;
  }
  auto done = std::async(std::launch::async, work);
  const auto is_done = [&] {
    return done.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  const size_t ahead = steps_ahead();
  while (!full_.at_end() && full_.next() < ahead && !is_done()) {
    full_.advance();
  }
  done.get();
}

InputStatistics WalkTask::summed(InputStatistics sums) const {
  const ProcessGroup& ranks = state_.ranks;
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
  if (sums.magnitudes) {
    sums.magnitudes = ranks.sum(*sums.magnitudes);
  }
  return sums;
}

std::optional<mx::array> WalkTask::divisors_of(const ModuleSpec& module) const {
  auto it = divisors_.find(module.input_id);
  return it == divisors_.end() ? std::nullopt : std::optional(it->second);
}

BlockWeights WalkTask::with(const DenseBlock& weights) const {
  BlockWeights block = source_;
  for (auto& [path, linear] : block.linears) {
    auto it = weights.find(path);
    if (it != weights.end()) {
      linear.dense = it->second;
    } else if (linear.dense) {  // else published packed
      linear.dense = mx::astype(*linear.dense, dtype());
    }
  }
  return block;
}

// Of batches first .. last - 1, against the full-precision stream.
double WalkTask::error(const DenseBlock& weights, size_t first, size_t last) {
  full_.complete();
  const BlockWeights block = with(weights);
  const ForwardContext context{.dtype = dtype()};
  return error_of(first, last, [&](size_t i) {
    return run_block(spec_, block, inputs().stream().start(i), context);
  });
}

double WalkTask::error_of(
    size_t first,
    size_t last,
    const std::function<mx::array(size_t)>& output) const {
  double error = 0;
  double tokens = 0;
  for (size_t i = first; i < last; ++i) {
    error +=
        error_sum(spec_, state_.batches[i], output(i), state_.full.output(i));
    tokens += double(state_.batches[i].count);
  }
  return state_.ranks.sum(error) / state_.ranks.sum(tokens);
}

double WalkTask::held_out_error(const DenseBlock& weights) {
  return error(weights, state_.fit_batches, state_.batches.size());
}

double WalkTask::held_out_error() {
  if (!quantized_ || changed_) {
    DenseBlock dense;
    for (const auto& [path, packed] : packed_) {
      dense.insert_or_assign(path, *weights_.linears.at(path).dense);
    }
    return held_out_error(dense);
  }
  // The stream has come most of the way with these weights.
  full_.complete();
  quantized_->complete();
  return error_of(state_.fit_batches, state_.batches.size(), [&](size_t i) {
    return state_.quantized->output(i);
  });
}

double WalkTask::fit_error(const DenseBlock& weights) {
  // Each rank's share of one batch in sixteen.
  constexpr size_t kShare = 16;
  const size_t count = (state_.fit_batches + kShare - 1) / kShare;
  return error(weights, 0, count);
}

mx::array WalkTask::expand(const ops::QuantizedWeight& weight) const {
  return evaluated(ops::dequantize(weight, dtype()));
}

std::vector<float> WalkTask::foldable(
    const ScaleGroup& group,
    const std::vector<float>& scales) const {
  return foldable_scales(group, scales, source_);
}

bool WalkTask::can_fold(const ScaleGroup& group) const {
  return !published_.contains(group.previous) &&
      std::ranges::none_of(group.linears, [&](const std::string& path) {
        return published_.contains(path);
      });
}

void WalkTask::fold(const ScaleGroup& group, const std::vector<float>& scales) {
  std::set<std::string> modules;
  for (const auto& name : fold_scales(group, scales, source_)) {
    folded_.insert(name);
    modules.insert(module_of(name));
  }
  // The full-precision stream's inputs stay as they were.
  for (const LinearGroup& own : groups_) {
    if (std::ranges::count(group.linears, own.modules.front().path) > 0) {
      auto now = to_array(scales);
      auto [it, first] =
          divisors_.try_emplace(own.modules.front().input_id, now);
      if (!first) {
        it->second = it->second * now;
      }
    }
  }
  follow_source(modules);
}

// What is not packed runs as it will be written.
void WalkTask::follow_source(const std::set<std::string>& modules) {
  for (const auto& path : modules) {
    const auto linear = source_.linears.find(path);
    if (linear == source_.linears.end()) {
      continue;  // a norm
    }
    auto& own = weights_.linears.at(path);
    own.bias = linear->second.bias;
    if (!packed_.contains(path)) {
      own.dense = mx::astype(*linear->second.dense, dtype());
      mx::eval(*own.dense);
    }
  }
  weights_.norms = source_.norms;
  changed_ = changed_ || inputs().next() > 0 || inputs().at_end();
}

void WalkTask::unfold() {
  source_ = full_weights_;
  divisors_.clear();
  std::set<std::string> modules;
  for (const auto& name : folded_) {
    modules.insert(module_of(name));
  }
  folded_.clear();
  follow_source(modules);
}

void WalkTask::restart() {
  full_.restart();
  if (quantized_) {
    quantized_->restart();
  }
  asked_ = 0;
  changed_ = false;
  expert_tokens_.reset();
  expert_sums_.clear();
}

size_t WalkTask::index_of(const std::string& path) const {
  for (size_t i = 0; i < groups_.size(); ++i) {
    for (const ModuleSpec& module : groups_[i].modules) {
      if (module.path == path) {
        return i;
      }
    }
  }
  throw argument_error("walk", path + " is not to be quantized");
}

void WalkTask::set(
    const std::string& path,
    const ops::QuantizedWeight& weight) {
  packed_.insert_or_assign(path, weight);
  weights_.linears.at(path).dense = expand(weight);
  changed_ = changed_ || inputs().next() > groups_[index_of(path)].step + 1 ||
      inputs().at_end();
}

void WalkTask::finish() {
  for (const LinearGroup& group : groups_) {
    for (const ModuleSpec& module : group.modules) {
      if (!packed_.contains(module.path)) {
        throw argument_error(
            "walk", module.path + " was left unquantized by its method");
      }
    }
  }
  full_.complete();
  state_.full.leave();
  if (quantized_) {
    if (changed_) {
      quantized_->restart();
    }
    quantized_->complete();
    state_.quantized->leave();
  }
}

std::map<std::string, mx::array> WalkTask::result() const {
  auto tensors = block_tensors(packed_);
  for (const auto& name : folded_) {
    const auto module = module_of(name);
    if (auto norm = source_.norms.find(module); norm != source_.norms.end()) {
      tensors.insert_or_assign(name, norm->second);
      continue;
    }
    const auto& linear = weights_.linears.at(module);
    if (name.ends_with(".bias")) {
      tensors.insert_or_assign(name, *linear.bias);
    } else if (!packed_.contains(module)) {
      tensors.insert_or_assign(name, *linear.dense);
    }
  }
  return tensors;
}

}  // namespace pennyweight
