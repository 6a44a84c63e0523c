#include "pass/block_stream.h"

#include <mlx/ops.h>

#include <utility>

namespace pennyweight {

bool adds_to_residual(const BlockSpec& block, BlockInput input) {
  if (block.residual_scale != 1) {
    return false;
  }
  return (input == BlockInput::mixed && !block.attention_post) ||
      (input == BlockInput::wide && !block.mlp_post && !block.moe);
}

BlockStream::BlockStream(
    const std::vector<TokenBatch>& batches,
    const StreamSettings& settings,
    MemoryBudget& budget)
    : batches_(batches),
      settings_(settings),
      context_{.dtype = settings.dtype},
      mixed_(batches.size(), budget, settings.scratch_folder),
      scanned_(batches.size(), budget, settings.scratch_folder),
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

void BlockStream::embed(const EmbeddingAndHead& weights) {
  for (size_t i = 0; i < batches_.size(); ++i) {
    start_->put(i, pennyweight::embed(weights, batches_[i].tokens));
  }
}

void BlockStream::enter(const BlockSpec& spec, const BlockWeights& weights) {
  spec_ = &spec;
  weights_ = &weights;
}

mx::array BlockStream::normed(BlockInput input, size_t batch) const {
  return input == BlockInput::mlp
      ? mlp_input(*spec_, *weights_, residual(input, batch), context_)
      : attention_input(*spec_, *weights_, start(batch), context_);
}

mx::array BlockStream::attended(size_t batch) const {
  return attention_output(
      *spec_,
      *weights_,
      start(batch),
      mixed_.get(batch),
      spec_->side_scan ? std::optional(scanned_.get(batch)) : std::nullopt);
}

void BlockStream::advance(size_t step, size_t batch) {
  const auto inputs = block_steps(*spec_).at(step);
  for (BlockInput input : inputs) {
    switch (input) {
      case BlockInput::mixed:
        mixed_.put(
            batch,
            attention_mixed(
                *spec_,
                *weights_,
                normed(BlockInput::attention, batch),
                context_));
        break;
      case BlockInput::scanned:
        scanned_.put(
            batch,
            *side_scanned(
                *spec_,
                *weights_,
                normed(BlockInput::attention, batch),
                context_));
        break;
      case BlockInput::mlp:
        if (spec_->attends) {
          after().put(batch, attended(batch));
        }
        break;
      case BlockInput::wide:
        if (!spec_->parallel && batch == 0) {
          mixed_.clear();
          scanned_.clear();
        }
        if (spec_->mlp) {
          auto read = spec_->parallel ? BlockInput::attention : BlockInput::mlp;
          wide_.put(
              batch, mlp_wide(*spec_->mlp, *weights_, normed(read, batch)));
        }
        break;
      case BlockInput::summed:
        mixed_.put(
            batch,
            expert_sum(
                *spec_->moe, *weights_, tokens_of(BlockInput::mlp, batch)));
        break;
      default:
        break;  // made anew from the block's input
    }
  }
}

mx::array BlockStream::input(const ModuleSpec& module, size_t batch) const {
  switch (module.input) {
    case BlockInput::attention:
    case BlockInput::mlp:
      return normed(module.input, batch);
    case BlockInput::mixed:
      return mixed_.get(batch);
    case BlockInput::scanned:
      return scanned_.get(batch);
    case BlockInput::wide:
      return module.expert ? expert_input(batch) : wide_.get(batch);
    case BlockInput::latent:
      return expert_input(batch);
    case BlockInput::summed:
      return mixed_.get(batch);
    default:
      return latent_input(
          *spec_,
          *weights_,
          normed(BlockInput::attention, batch),
          module.input,
          module.part,
          context_);
  }
}

mx::array BlockStream::expert_input(
    const ModuleSpec& module,
    const mx::array& tokens) const {
  return module.input == BlockInput::wide
      ? expert_wide(*spec_->moe, *weights_, module.part, tokens)
      : tokens;
}

mx::array BlockStream::tokens_of(BlockInput input, size_t batch) const {
  return mx::flatten(normed(input, batch), 0, 1);
}

mx::array BlockStream::expert_input(size_t batch) const {
  return expert_source(*spec_->moe, *weights_, normed(BlockInput::mlp, batch));
}

Routing BlockStream::routing(size_t batch) const {
  return route(*spec_->moe, *weights_, tokens_of(BlockInput::mlp, batch));
}

mx::array BlockStream::residual(BlockInput input, size_t batch) const {
  const bool after_attention = !spec_->parallel && spec_->attends &&
      (input == BlockInput::mlp || input == BlockInput::wide);
  return after_attention ? after().get(batch) : start(batch);
}

void BlockStream::finish(size_t batch) {
  if (spec_->parallel) {
    after().put(
        batch,
        parallel_output(
            *spec_,
            *weights_,
            start(batch),
            mixed_.get(batch),
            wide_.get(batch)));
    return;
  }
  if (!spec_->has_mlp()) {
    after().put(batch, attended(batch));
    return;
  }
  auto wide = spec_->mlp ? std::optional(wide_.get(batch)) : std::nullopt;
  const auto before = residual(BlockInput::wide, batch);
  after().put(batch, mlp_output(*spec_, *weights_, before, wide, context_));
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
  scanned_.clear();
  wide_.clear();
  spec_ = nullptr;
  weights_ = nullptr;
}

int64_t BlockStream::scratch_bytes() const {
  return start_->scratch_bytes() + (after_ ? after_->scratch_bytes() : 0) +
      mixed_.scratch_bytes() + scanned_.scratch_bytes() + wide_.scratch_bytes();
}

}  // namespace pennyweight
