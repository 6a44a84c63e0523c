#include "eval/evaluate.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "core/error.h"
#include "eval/float16_range.h"
#include "model/decoder.h"
#include "model/finite.h"
#include "pass/model_pass.h"

namespace pennyweight {

namespace {

// Rows that share one pass over a tile of the head, and the tile's width:
// what a packed head is expanded to at a time. No logits of this size are held.
constexpr int kHeadRows = 4096;
constexpr int kHeadTile = 16384;

// One model of the run. Hidden states go in and out per batch.
struct Runner {
  const Model& model;
  mx::Dtype dtype;
  EmbeddingAndHead tables;
  bool checked = false;            // that the blocks' weights are finite
  OverflowGuard* guard = nullptr;  // watches where set

  Runner(const Model& of, std::optional<mx::Dtype> wanted)
      : model(of),
        dtype(wanted.value_or(of.dtype)),
        tables(load_embedding_and_head(of, dtype)) {
    require_finite(model, tables);
  }
};

class Ticker {
 public:
  // A token takes `steps`: each block of each model, and the head.
  Ticker(const ProgressFn& progress, int64_t tokens, int64_t steps)
      : progress_(progress), tokens_(tokens), steps_(steps) {}

  void advance(int64_t amount) {
    done_ += amount;
    report(progress_, {"evaluate", done_ / steps_, tokens_, "tokens", ""});
  }

 private:
  const ProgressFn& progress_;
  int64_t tokens_;
  int64_t steps_;
  int64_t done_ = 0;
};

// The scored rows of each batch behind the final norm: [rows, hidden].
std::vector<mx::array>
run_blocks(Runner& runner, std::span<const EvalBatch> batches, Ticker& ticker) {
  auto all = MemoryBudget::unlimited();
  ModelPass pass(
      runner.model,
      {batches.begin(), batches.end()},
      {.dtype = runner.dtype},
      all);
  pass.embed(&runner.tables);
  OverflowGuard* guard = runner.guard;
  for (size_t i = 0; guard && i < batches.size(); ++i) {
    guard->embedded(pass.state(i));
  }
  const auto packed =
      batches.size() > 1 ? PackedWeights::expand : PackedWeights::keep;
  const auto load = [&](const BlockSpec& block) {
    auto weights = load_block(runner.model, block.index, runner.dtype, packed);
    if (!runner.checked) {
      require_finite(weights);
    }
    if (guard) {
      guard->enter(block, weights);
    }
    return weights;
  };
  pass.forward(load, {}, [&](const auto& block, size_t i, auto& x, auto& y) {
    if (guard) {
      guard->leave(block, x, y);
    }
    ticker.advance(batches[i].positions);
  });
  runner.checked = true;
  std::vector<mx::array> rows;
  for (size_t i = 0; i < batches.size(); ++i) {
    rows.push_back(pass.head_rows(runner.tables, i));
    mx::eval(rows.back());
    if (guard) {
      guard->normed(rows.back());
    }
  }
  return rows;
}

// Rows that go through the head together.
struct HeadChunk {
  mx::array x;
  std::optional<mx::array> reference;
  mx::array targets;
  mx::array state;
};

std::vector<HeadChunk> make_chunks(
    std::span<const EvalBatch> batches,
    const std::vector<mx::array>& hidden,
    const std::vector<mx::array>& reference) {
  std::vector<HeadChunk> chunks;
  for (size_t i = 0; i < batches.size(); ++i) {
    int rows = hidden[i].shape(0);
    for (int first = 0; first < rows; first += kHeadRows) {
      int count = std::min(kHeadRows, rows - first);
      std::optional<mx::array> beside;
      if (!reference.empty()) {
        beside = ops::slice_rows(reference[i], first, count);
      }
      chunks.push_back(
          {ops::slice_rows(hidden[i], first, count),
           beside,
           ops::slice_rows(batches[i].targets, first, count),
           ops::score_start(count)});
    }
  }
  return chunks;
}

// The head's rows of one tile, expanded once for all chunks if packed.
LinearWeights head_rows(const Runner& runner, int first, int count) {
  return runner.tables.head.dense_rows(first, count);
}

void append(std::vector<float>& to, const mx::array& from) {
  to.insert(to.end(), from.data<float>(), from.data<float>() + from.size());
}

void run_head(
    const Runner& runner,
    const Runner* reference,
    std::vector<HeadChunk>& chunks,
    int64_t positions,
    Ticker& ticker,
    TokenScores& scores) {
  int vocab = static_cast<int>(runner.model.spec.vocab);
  int64_t done = 0;
  for (int first = 0; first < vocab; first += kHeadTile) {
    int count = std::min(kHeadTile, vocab - first);
    const auto tile = head_rows(runner, first, count);
    std::optional<LinearWeights> other;
    if (reference) {
      other = head_rows(*reference, first, count);
    }
    for (HeadChunk& chunk : chunks) {
      if (runner.guard) {
        runner.guard->logits(chunk.x, tile);
      }
      std::optional<ops::HeadRows> beside;
      if (other) {
        beside = ops::HeadRows{
            *chunk.reference,
            *other->dense,
            other->bias,
            reference->model.spec.logit_cap};
      }
      chunk.state = ops::score_linear(
          chunk.state,
          {chunk.x, *tile.dense, tile.bias, runner.model.spec.logit_cap},
          beside,
          chunk.targets,
          first);
      mx::eval(chunk.state);
    }
    int64_t part = positions * (first + count) / vocab;
    ticker.advance(part - done);
    done = part;
  }
  for (const HeadChunk& chunk : chunks) {
    auto result = ops::score_finish(chunk.state);
    auto agrees = mx::astype(result.agrees, mx::float32);
    mx::eval({result.nll, result.kl, result.reference_nll, agrees});
    append(scores.nll, result.nll);
    if (reference) {
      append(scores.kl, result.kl);
      append(scores.reference_nll, result.reference_nll);
      append(scores.agrees, agrees);
    }
  }
}

int64_t batch_tokens(const Model& model, const EvalSettings& settings) {
  if (settings.batch_tokens > 0) {
    return settings.batch_tokens;
  }
  int64_t widest = model.spec.hidden;
  for (const auto& module : list_modules(model.spec.blocks.front())) {
    widest = std::max({widest, module.in, module.out});
  }
  // A few arrays of the widest kind, 6 MB each, so that they mostly stay in
  // the caches between ops.
  constexpr int64_t kBytes = 6 << 20;
  return std::clamp<int64_t>(kBytes / (2 * widest), 512, 8192);
}

/// Known states are one wave's: with the same settings this run has one, too.
void check_states(
    const ReferenceStates& states,
    const std::vector<EvalBatch>& batches) {
  if (!states.hidden.empty() && states.hidden.size() != batches.size()) {
    throw argument_error(
        "evaluate", "the reference's states are of another text");
  }
}

void check_pair(const Model& model, const Model& reference) {
  if (model.spec.vocab != reference.spec.vocab) {
    throw argument_error(
        "evaluate",
        "the model has " + std::to_string(model.spec.vocab) +
            " vocabulary entries and the reference " +
            std::to_string(reference.spec.vocab) +
            "; only models of one vocabulary can be compared");
  }
}

/// Where a wave of batches ends that begins at `begin`: after one at least.
size_t wave_end(
    const std::vector<EvalBatch>& batches,
    size_t begin,
    int64_t most_positions) {
  int64_t held = batches[begin].positions;
  size_t end = begin + 1;
  while (end < batches.size() &&
         held + batches[end].positions <= most_positions) {
    held += batches[end++].positions;
  }
  return end;
}

int64_t count_positions(std::span<const EvalBatch> batches) {
  int64_t positions = 0;
  for (const EvalBatch& batch : batches) {
    positions += batch.positions;
  }
  return positions;
}

}  // namespace

Evaluation evaluate(
    const Model& model,
    const Model* reference,
    const std::vector<ScoredSequence>& sequences,
    const EvalSettings& settings,
    const ProgressFn& progress,
    ReferenceStates* states) {
  if (reference) {
    check_pair(model, *reference);
  }
  auto batches =
      make_batches(sequences, model.spec.vocab, batch_tokens(model, settings));
  if (states) {
    check_states(*states, batches);
  }
  Runner runner(model, settings.dtype);
  OverflowGuard guard(model);
  if (settings.float16_overflow_fails && runner.dtype == mx::float16) {
    runner.guard = &guard;
  }
  std::optional<Runner> other;
  if (reference) {
    other.emplace(*reference, settings.dtype);
  }
  const bool known = states && !states->hidden.empty();
  int64_t steps = static_cast<int64_t>(model.spec.blocks.size()) + 1;
  int64_t width = model.spec.hidden;
  if (reference) {
    steps += known ? 0 : static_cast<int64_t>(reference->spec.blocks.size());
    width += reference->spec.hidden;
  }
  Ticker ticker(progress, count_positions(batches), steps);
  const int64_t most_positions =
      settings.activation_bytes / (width * static_cast<int64_t>(sizeof(float)));

  TokenScores scores;
  for (size_t begin = 0; begin < batches.size();) {
    const size_t end = wave_end(batches, begin, most_positions);
    std::span<const EvalBatch> wave(&batches[begin], end - begin);
    std::vector<mx::array> beside;
    if (known) {
      beside = states->hidden;
    } else if (other) {
      beside = run_blocks(*other, wave, ticker);
      if (states && wave.size() == batches.size()) {
        states->hidden = beside;
      }
    }
    auto hidden = run_blocks(runner, wave, ticker);
    auto chunks = make_chunks(wave, hidden, beside);
    run_head(
        runner,
        other ? &*other : nullptr,
        chunks,
        count_positions(wave),
        ticker,
        scores);
    begin = end;
  }
  return summarize(std::move(scores), static_cast<int64_t>(sequences.size()));
}

}  // namespace pennyweight
