#include "pass/model_pass.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "model/finite.h"
#include "model/stream/columns.h"

namespace pennyweight {

namespace {

size_t count_slots(size_t batches, int blocks, bool keep_inputs) {
  return batches * (keep_inputs ? static_cast<size_t>(blocks) + 1 : 1);
}

}  // namespace

ModelPass::ModelPass(
    const Model& model,
    std::vector<TokenBatch> batches,
    const PassSettings& settings,
    MemoryBudget& budget)
    : model_(model),
      batches_(std::move(batches)),
      context_{.dtype = settings.dtype},
      keep_inputs_(settings.keep_inputs),
      part_(settings.part),
      first_(part_ ? part_->first : 0),
      end_(part_ ? part_->end : static_cast<int>(model.spec.blocks.size())),
      at_(batches_.size(), first_),
      checked_(model.spec.blocks.size()),
      states_(
          count_slots(batches_.size(), end_ - first_, keep_inputs_),
          budget,
          settings.scratch_folder),
      gradients_(batches_.size(), budget, settings.scratch_folder),
      token_inputs_(
          model.spec.token_inputs ? batches_.size() : 0,
          first_,
          end_,
          budget,
          settings.scratch_folder) {}

int64_t ModelPass::tokens() const {
  int64_t count = 0;
  for (const TokenBatch& batch : batches_) {
    count += batch.count;
  }
  return count;
}

size_t ModelPass::slot(int block, size_t batch) const {
  return keep_inputs_
      ? static_cast<size_t>(block - first_) * batches_.size() + batch
      : batch;
}

BatchRange ModelPass::cut(BatchRange range) const {
  return {range.begin, std::min(range.end, batches_.size())};
}

mx::array ModelPass::receive(size_t batch, int columns, int from) const {
  return part_->receive(batches_[batch].tokens, columns, from);
}

void ModelPass::embed(const EmbeddingAndHead* tables, BatchRange range) {
  const auto [begin, end] = cut(range);
  for (size_t i = begin; i < end; ++i) {
    at_[i] = first_;
    const bool embeds = !part_ || part_->embeds;
    std::optional<mx::array> x;
    if (embeds || model_.spec.token_inputs) {
      x = pennyweight::embed(*tables, batches_[i].tokens);
      token_inputs_.put(i, *tables, batches_[i].tokens, *x, context_.dtype);
    }
    if (!embeds) {
      const auto& first = model_.spec.blocks[static_cast<size_t>(first_)];
      x = receive(i, read_columns(first), part_->previous());
    }
    states_.put(slot(first_, i), *x);
  }
}

BlockWeights ModelPass::load(const BlockSpec& block) {
  auto weights =
      load_block(model_, block.index, context_.dtype, PackedWeights::expand);
  const auto index = static_cast<size_t>(block.index);
  if (!checked_[index]) {
    require_finite(weights);
    checked_[index] = true;
  }
  return weights;
}

void ModelPass::forward(
    const LoadFn& weights,
    BatchRange range,
    const SeeFn& see) {
  for (int b = first_; b < end_; ++b) {
    const auto& block = model_.spec.blocks[static_cast<size_t>(b)];
    step(block, weights ? weights(block) : load(block), range, see);
  }
  const auto [begin, end] = cut(range);
  for (size_t i = begin; part_ && !part_->heads && i < end; ++i) {
    part_->ranks->send(state(i), part_->next());
  }
}

void ModelPass::step(
    const BlockSpec& block,
    const BlockWeights& weights,
    BatchRange range,
    const SeeFn& see) {
  const auto [begin, end] = cut(range);
  for (size_t i = begin; i < end; ++i) {
    const auto x = read_by(block, state(i), i);
    states_.put(
        slot(block.index + 1, i), run_block(block, weights, x, context_));
    at_[i] = block.index + 1;
    if (see) {
      see(block, i, x, state(i));
    }
  }
}

mx::array ModelPass::state(size_t batch) const {
  return states_.get(slot(at_[batch], batch));
}

mx::array ModelPass::input(int block, size_t batch) const {
  return read_by(
      model_.spec.blocks[static_cast<size_t>(block)],
      states_.get(slot(block, batch)),
      batch);
}

mx::array ModelPass::read_by(
    const BlockSpec& block,
    const mx::array& x,
    size_t batch) const {
  return token_inputs_.beside(block, x, batch);
}

mx::array head_rows_of(
    const DecoderSpec& spec,
    const EmbeddingAndHead& tables,
    const TokenBatch& batch,
    const mx::array& x,
    mx::Dtype dtype) {
  return final_norm(spec, tables, pick_tokens(batch, x), dtype);
}

mx::array ModelPass::head_rows(const EmbeddingAndHead& tables, size_t batch)
    const {
  return head_rows_of(
      model_.spec, tables, batches_[batch], state(batch), context_.dtype);
}

void ModelPass::head_back(
    const EmbeddingAndHead& tables,
    size_t batch,
    const mx::array& by_rows) {
  const auto rows = [&](const std::vector<mx::array>& in) {
    return std::vector<mx::array>{head_rows_of(
        model_.spec, tables, batches_[batch], in[0], context_.dtype)};
  };
  gradients_.put(
      batch,
      mx::vjp(rows, {state(batch)}, {mx::astype(by_rows, context_.dtype)})
          .second[0]);
}

void ModelPass::backward(
    const std::function<void(const BlockSpec& block)>& each,
    BatchRange range) {
  const auto [begin, end] = cut(range);
  for (size_t i = begin; part_ && !part_->heads && i < end; ++i) {
    const auto& last = model_.spec.blocks[static_cast<size_t>(end_ - 1)];
    gradients_.put(i, receive(i, given_columns(last), part_->next()));
  }
  for (int b = end_; b-- > first_;) {
    each(model_.spec.blocks[static_cast<size_t>(b)]);
  }
  for (size_t i = begin; part_ && !part_->embeds && i < end; ++i) {
    part_->ranks->send(gradient(i), part_->previous());
  }
}

void ModelPass::back(
    const BlockSpec& block,
    const BackFn& back,
    BatchRange range) {
  const auto [begin, end] = cut(range);
  for (size_t i = begin; i < end; ++i) {
    const auto dx = back(i, input(block.index, i), gradients_.get(i));
    // What tokens bring ends here: its gradient goes no further.
    gradients_.put(
        i, block.token_gate ? first_columns(dx, read_columns(block)) : dx);
  }
}

mx::array ModelPass::gradient(size_t batch) const {
  return gradients_.get(batch);
}

}  // namespace pennyweight
