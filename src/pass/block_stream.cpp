#include "pass/block_stream.h"

#include <mlx/ops.h>

#include <utility>

#include "model/stream/columns.h"

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
      budget_(budget),
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
  if (const auto& token = weights.token) {
    const auto blocks = token->spec.projection.out / token->spec.size;
    inputs_.emplace(
        batches_.size(),
        0,
        static_cast<int>(blocks),
        budget_,
        settings_.scratch_folder);
  }
  for (size_t i = 0; i < batches_.size(); ++i) {
    const auto x = pennyweight::embed(weights, batches_[i].tokens);
    if (inputs_) {
      inputs_->put(i, weights, batches_[i].tokens, x, settings_.dtype);
    }
    start_->put(i, x);
  }
}

void BlockStream::embed_for(
    const BlockSpec& block,
    const EmbeddingAndHead& weights) {
  embed(weights);
  for (size_t i = 0; i < batches_.size(); ++i) {
    const auto x = start_->get(i);
    start_->put(i, padded_input(x, read_columns(block)));
  }
}

void BlockStream::enter(const BlockSpec& spec, const BlockWeights& weights) {
  spec_ = &spec;
  weights_ = &weights;
}

// Of a block's inputs, or of what is behind its attention.
mx::array BlockStream::normed(BlockInput input, size_t batch) const {
  return input == BlockInput::mlp
      ? mlp_input(*spec_, *weights_, residual(input, batch), context_)
      : attention_input(
            *spec_,
            *weights_,
            residual_of(*spec_, start_->get(batch)),
            context_);
}

// The same, of what a module's input is made of; experts and their router may
// have norms of their own.
mx::array BlockStream::normed(const ModuleSpec& module, size_t batch) const {
  if (!module.expert && module.input != BlockInput::router) {
    return normed(module.input, batch);
  }
  const auto x = residual(BlockInput::mlp, batch);
  return module.expert ? experts_input(*spec_, *weights_, x, context_)
                       : router_input(*spec_, *weights_, x, context_);
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
                context_,
                shared_keys(*spec_, start_->get(batch), context_.dtype)));
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
        if (spec_->attends && !spec_->parallel) {
          after().put(batch, behind_attention(batch));
        }
        break;
      case BlockInput::wide:
        if (!spec_->parallel && batch == 0) {
          mixed_.clear();
          scanned_.clear();
        }
        if (spec_->mlp) {
          auto read = spec_->parallel && !spec_->mlp_norm
              ? BlockInput::attention
              : BlockInput::mlp;
          wide_.put(
              batch, mlp_wide(*spec_->mlp, *weights_, normed(read, batch)));
        }
        break;
      case BlockInput::summed: {
        const auto read = normed(BlockInput::mlp, batch);
        const auto sum =
            expert_sum(*spec_->moe, *weights_, mx::flatten(read, 0, 1));
        mixed_.put(
            batch, mx::unflatten(sum, 0, {read.shape(0), read.shape(1)}));
        break;
      }
      case BlockInput::token:
        after().put(batch, behind_mlp(batch));
        break;
      default:
        break;  // made anew from the block's input
    }
  }
}

mx::array BlockStream::behind_attention(size_t batch) const {
  const auto x = start_->get(batch);
  const auto y = attention_output(
      *spec_,
      *weights_,
      residual_of(*spec_, x),
      mixed_.get(batch),
      spec_->side_scan ? std::optional(scanned_.get(batch)) : std::nullopt);
  std::optional<KeysAndValues> own;
  if (shares_keys(*spec_)) {
    own = own_keys(
        *spec_, *weights_, normed(BlockInput::attention, batch), context_);
  }
  return with_given(*spec_, y, x, own);
}

mx::array BlockStream::behind_mlp(size_t batch) const {
  const auto x = spec_->attends ? after().get(batch) : start_->get(batch);
  const auto wide = spec_->mlp ? std::optional(wide_.get(batch)) : std::nullopt;
  const auto y =
      mlp_output(*spec_, *weights_, residual_of(*spec_, x), wide, context_);
  return with_columns(*spec_, y, x);
}

mx::array BlockStream::token_wide(size_t batch) const {
  return pennyweight::token_wide(
      *spec_,
      *weights_,
      residual_of(*spec_, after().get(batch)),
      inputs_->get(*spec_, batch),
      context_);
}

mx::array BlockStream::input(const ModuleSpec& module, size_t batch) const {
  switch (module.input) {
    case BlockInput::attention:
    case BlockInput::mlp:
    case BlockInput::router:
      return normed(module, batch);
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
    case BlockInput::token:
      return mx::contiguous(
          mx::astype(residual_of(*spec_, after().get(batch)), context_.dtype));
    case BlockInput::token_wide:
      return token_wide(batch);
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

mx::array BlockStream::expert_input(size_t batch) const {
  const auto x = residual(BlockInput::mlp, batch);
  return expert_source(
      *spec_->moe, *weights_, experts_input(*spec_, *weights_, x, context_));
}

Routing BlockStream::routing(size_t batch) const {
  const auto x = residual(BlockInput::mlp, batch);
  return route(
      *spec_->moe,
      *weights_,
      mx::flatten(router_input(*spec_, *weights_, x, context_), 0, 1));
}

mx::array BlockStream::residual(BlockInput input, size_t batch) const {
  const bool after_attention = !spec_->parallel && spec_->attends &&
      (input == BlockInput::mlp || input == BlockInput::wide);
  return residual_of(
      *spec_, after_attention ? after().get(batch) : start_->get(batch));
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
  const bool gated = spec_->token_gate.has_value();
  const auto x = gated   ? after().get(batch)
      : spec_->has_mlp() ? behind_mlp(batch)
                         : behind_attention(batch);
  const auto y = block_end(
      *spec_,
      *weights_,
      residual_of(*spec_, x),
      gated ? std::optional(token_wide(batch)) : std::nullopt);
  after().put(batch, with_columns(*spec_, y, x));
}

void BlockStream::run() {
  for (size_t i = 0; i < batches_.size(); ++i) {
    after().put(i, run_block(*spec_, *weights_, start(i), context_));
  }
}

mx::array BlockStream::start(size_t batch) const {
  const auto x = start_->get(batch);
  return inputs_ ? inputs_->beside(*spec_, x, batch) : x;
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
      mixed_.scratch_bytes() + scanned_.scratch_bytes() +
      wide_.scratch_bytes() + (inputs_ ? inputs_->scratch_bytes() : 0);
}

}  // namespace pennyweight
