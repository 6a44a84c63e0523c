#include "calibration/block_stream.h"

#include <utility>

namespace pennyweight {

const std::vector<BlockStep>& block_steps() {
  static const std::vector<BlockStep> steps{
      BlockStep::attention_in,
      BlockStep::attention_out,
      BlockStep::mlp_in,
      BlockStep::mlp_out};
  return steps;
}

bool adds_to_residual(const BlockSpec& block, BlockStep step) {
  if (block.residual_scale != 1) {
    return false;
  }
  return (step == BlockStep::attention_out && !block.attention_post) ||
      (step == BlockStep::mlp_out && !block.mlp_post);
}

BlockStream::BlockStream(
    const std::vector<TokenBatch>& batches,
    const StreamSettings& settings,
    MemoryBudget& budget)
    : batches_(batches),
      settings_(settings),
      context_{.dtype = settings.dtype},
      mixed_(batches.size(), budget, settings.scratch_folder),
      wide_(batches.size(), budget, settings.scratch_folder) {
  const auto make = [&] {
    return std::make_unique<ActivationStore>(
        batches.size(), budget, settings.scratch_folder);
  };
  start_ = make();
  if (settings.keep_start) {
    after_ = make();
  }
}

void BlockStream::embed(const OuterWeights& weights) {
  for (size_t i = 0; i < batches_.size(); ++i) {
    start_->put(i, pennyweight::embed(weights, batches_[i].tokens));
  }
}

void BlockStream::enter(const BlockSpec& spec, const BlockWeights& weights) {
  spec_ = &spec;
  weights_ = &weights;
}

mx::array BlockStream::step_input(BlockStep step, size_t batch) {
  switch (step) {
    case BlockStep::attention_in:
      return attention_input(*spec_, *weights_, start(batch), context_);
    case BlockStep::attention_out: {
      auto input = attention_input(*spec_, *weights_, start(batch), context_);
      mixed_.put(batch, attention_mixed(*spec_, *weights_, input, context_));
      return mixed_.get(batch);
    }
    case BlockStep::mlp_in: {
      after().put(
          batch,
          attention_output(*spec_, *weights_, start(batch), mixed_.get(batch)));
      return mlp_input(*spec_, *weights_, after().get(batch), context_);
    }
    case BlockStep::mlp_out:
      break;
  }
  if (batch == 0) {
    mixed_.clear();
  }
  auto input = mlp_input(*spec_, *weights_, after().get(batch), context_);
  wide_.put(batch, mlp_wide(*spec_, *weights_, input));
  return wide_.get(batch);
}

mx::array BlockStream::residual(BlockStep step, size_t batch) const {
  bool in_attention =
      step == BlockStep::attention_in || step == BlockStep::attention_out;
  return in_attention ? start(batch) : after().get(batch);
}

void BlockStream::finish(size_t batch) {
  after().put(
      batch,
      mlp_output(*spec_, *weights_, after().get(batch), wide_.get(batch)));
}

void BlockStream::run() {
  for (size_t i = 0; i < batches_.size(); ++i) {
    after().put(i, run_block(*spec_, *weights_, start(i), context_));
  }
}

mx::array BlockStream::start(size_t batch) const {
  return start_->get(batch);
}

mx::array BlockStream::output(size_t batch) const {
  return after().get(batch);
}

void BlockStream::leave() {
  if (after_) {
    std::swap(start_, after_);
  }
  mixed_.clear();
  wide_.clear();
  spec_ = nullptr;
  weights_ = nullptr;
}

int64_t BlockStream::scratch_bytes() const {
  return start_->scratch_bytes() + (after_ ? after_->scratch_bytes() : 0) +
      mixed_.scratch_bytes() + wide_.scratch_bytes();
}

}  // namespace pennyweight
