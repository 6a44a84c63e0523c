#include "run/block_walk.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/time_left.h"
#include "method/packed_block.h"
#include "ops/primitive.h"
#include "ops/rounding/quantize.h"
#include "pass/block_work.h"
#include "run/block_task.h"

namespace pennyweight {

namespace {

using Sequences = std::vector<std::vector<int32_t>>;

// Every size-th sequence.
Sequences share_of(const Sequences& all, const ProcessGroup& ranks) {
  Sequences own;
  for (size_t i = 0; i < all.size(); ++i) {
    if (static_cast<int>(i % static_cast<size_t>(ranks.size())) ==
        ranks.rank()) {
      own.push_back(all[i]);
    }
  }
  return own;
}

/// Adds to what a block reports how long those after it will take.
ProgressFn timed(const ProgressFn& progress, const TimeLeft& left) {
  if (!progress) {
    return progress;
  }
  return [&progress, seconds = left.seconds()](ProgressEvent event) {
    event.left = event.unit.empty() ? event.left : seconds;
    return progress(event);
  };
}

std::string duration(double seconds) {
  return seconds < 90 ? std::to_string(std::lround(seconds)) + " s"
                      : std::to_string(std::lround(seconds / 60)) + " min";
}

}  // namespace

CalibrationSplit split_held_out(Sequences sequences, bool hold_out) {
  CalibrationSplit split;
  size_t count = sequences.size();
  size_t held =
      hold_out && count >= 8 ? std::clamp<size_t>(count / 16, 1, 32) : 0;
  split.held_out.assign(
      std::make_move_iterator(sequences.end() - static_cast<ptrdiff_t>(held)),
      std::make_move_iterator(sequences.end()));
  sequences.resize(count - held);
  split.fit = std::move(sequences);
  return split;
}

BlockWalk::BlockWalk(
    const Model& model,
    const QuantPlan& plan,
    BlockMethod& stage,
    const CalibrationSplit& data,
    const WalkSettings& settings,
    const ProcessGroup& ranks)
    : model_(model),
      plan_(plan),
      stage_(stage),
      ranks_(ranks),
      held_out_(!data.held_out.empty()),
      budget_{settings.activation_bytes} {
  auto add = [&](const Sequences& sequences) {
    auto more = make_token_batches(
        share_of(sequences, ranks), model.spec.vocab, settings.batch_tokens);
    batches_.insert(batches_.end(), more.begin(), more.end());
  };
  add(data.fit);
  fit_batches_ = batches_.size();
  add(data.held_out);
  StreamSettings stream{
      model.dtype, settings.scratch_folder, stage.needs().restarts};
  full_.emplace(batches_, stream, budget_);
  if (stage.needs().quantized_inputs) {
    stream.keep_start = true;
    quantized_.emplace(batches_, stream, budget_);
  }
}

std::vector<TokenBatch> BlockWalk::table_batches() const {
  // The statistics of one input, and many rows to share them: these will do.
  constexpr int64_t kTokens = 8192;
  const int64_t wanted = kTokens / ranks_.size();
  std::vector<TokenBatch> chosen;
  int64_t tokens = 0;
  for (size_t i = 0; i < fit_batches_ && tokens < wanted; ++i) {
    chosen.push_back(batches_[i]);
    tokens += batches_[i].count;
  }
  return chosen;
}

// The quantized stream begins with the embedding as it will be written.
void BlockWalk::embed(const PackedBlock& fitted) {
  auto tables = load_embedding_and_head(model_, model_.dtype);
  full_->embed(tables);
  if (!quantized_) {
    return;
  }
  const auto round = [&](const std::string& path) {
    if (const auto& spec = plan_.at(path).spec) {
      const auto it = fitted.find(path);
      auto& table = tables.table(path);
      table = table.with_packed(
          it == fitted.end() ? quantize(table, *spec) : it->second);
    }
  };
  round(model_.spec.embedding);
  if (const auto& token = model_.spec.token_inputs) {
    round(token->table);
    round(token->projection.path);
  }
  quantized_->embed(tables);
}

void BlockWalk::run(
    WorkFolder& work,
    const PackedBlock& tables,
    const ProgressFn& progress) {
  auto blocks = static_cast<int64_t>(model_.spec.blocks.size());
  const int finished = work.finished();
  if (finished == blocks) {
    return;
  }
  embed(tables);
  const std::string name = stage_.name();
  report(progress, {name, 0, blocks, "blocks"});
  TimeLeft left(counted_work());
  for (const BlockSpec& spec : model_.spec.blocks) {
    const bool known = spec.index < finished;
    if (known) {
      run_finished(spec, work);
      stage_.resume(block_figures_from_json(work.load_report(spec.index)));
    } else {
      run_new(spec, work, timed(progress, left));
    }
    left.done(known);
    report(
        progress,
        {name, spec.index + 1, blocks, "blocks", "", false, left.seconds()});
    if (spec.index == finished && finished + 1 < blocks) {
      report(
          progress,
          {name,
           0,
           0,
           "",
           "after the first block about " + duration(*left.seconds()) +
               " to go"});
    }
  }
}

std::vector<double> BlockWalk::counted_work() const {
  TextSize text;
  for (size_t i = 0; i < batches_.size(); ++i) {
    (i < fit_batches_ ? text.fit : text.held_out) += double(batches_[i].count);
  }
  const double tokens = text.fit + text.held_out;
  std::vector<double> work;
  for (const BlockSpec& spec : model_.spec.blocks) {
    const auto one = count_work(spec);
    const auto own = stage_.operations(spec, text);
    work.push_back(
        own.walks * tokens * (2 * one.products + one.sums) +
        (own.forward + 3 * own.gradients) * one.products +
        own.gptq * one.rounding);
  }
  return work;
}

void BlockWalk::run_new(
    const BlockSpec& spec,
    WorkFolder& work,
    const ProgressFn& progress) {
  WalkTask task(
      {stage_.name(),
       model_,
       plan_,
       ranks_,
       batches_,
       fit_batches_,
       held_out_,
       *full_,
       quantized_ ? &*quantized_ : nullptr,
       progress,
       !ops::uses_kernels()},
      spec);
  auto start = std::chrono::steady_clock::now();
  auto figures = stage_.run(task);
  task.finish();
  if (auto experts = task.coverage(figures.warnings); !experts.is_null()) {
    figures.details["experts"] = std::move(experts);
  }
  for (const auto& warning : figures.warnings) {
    warn(progress, stage_.name(), warning);
  }
  figures.details["seconds"] = seconds_since(start);
  model_.checkpoint.require_unchanged();
  if (ranks_.first()) {
    work.save_block(spec.index, task.result(), to_json(figures));
  }
}

void BlockWalk::run_finished(const BlockSpec& spec, const WorkFolder& work) {
  auto weights =
      load_block(model_, spec.index, model_.dtype, PackedWeights::expand);
  full_->enter(spec, weights);
  full_->run();
  full_->leave();
  if (!quantized_) {
    return;
  }
  put_in_place(
      finished_block(work.load_block(spec.index), spec, plan_),
      model_.dtype,
      weights);
  quantized_->enter(spec, weights);
  quantized_->run();
  quantized_->leave();
}

}  // namespace pennyweight
