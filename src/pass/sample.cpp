#include "pass/sample.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "model/decoder.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"

namespace pennyweight {

namespace {

using Sequences = std::vector<std::vector<int32_t>>;

// A uniform number in [0, 1), equal on every platform, unlike the standard
// library's distributions.
double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1.0p-53;
}

// Generates one batch, all sequences in step.
class Generator {
 public:
  Generator(const Model& model, float temperature)
      : model_(model),
        temperature_(temperature),
        tables_(load_embedding_and_head(model, model.dtype)) {
    for (const BlockSpec& block : model.spec.blocks) {
      blocks_.push_back(load_block(model, block.index, model.dtype));
    }
  }

  void restart() {
    caches_.assign(blocks_.size(), BlockCache{});
  }

  // Feeds the next token of each sequence, or as many of each as the first step
  // likes; gives float32 [batch, vocab] probabilities of what follows.
  mx::array step(const std::vector<int32_t>& tokens, int batch) {
    const int length = static_cast<int>(tokens.size()) / batch;
    const mx::array ids(tokens.begin(), {batch, length}, mx::int32);
    auto x = embed(tables_, ids);
    const auto inputs = token_inputs(tables_, ids, x, model_.dtype);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      x = inputs.empty() ? x : with_token_input(x, inputs[i]);
      ForwardContext context{.dtype = model_.dtype, .cache = &caches_[i]};
      x = run_block(model_.spec.blocks[i], blocks_[i], x, context);
    }
    auto last = mx::slice(x, {0, length - 1, 0}, {batch, length, x.shape(2)});
    auto normal =
        final_norm(model_.spec, tables_, mx::flatten(last, 0, 1), model_.dtype);
    auto logits =
        head_tile(tables_, normal, 0, static_cast<int>(model_.spec.vocab));
    if (temperature_ > 0) {
      logits = logits / mx::array(temperature_);
    }
    auto chances = ops::softmax(logits);
    std::vector<mx::array> outputs{chances};
    for (BlockCache& cache : caches_) {
      for (const auto& part : {cache.keys, cache.values, cache.inputs}) {
        if (part) {  // what attends keeps two, a mixer without a state one
          outputs.push_back(*part);
        }
      }
    }
    mx::eval(outputs);
    return chances;
  }

 private:
  const Model& model_;
  float temperature_;
  EmbeddingAndHead tables_;
  std::vector<BlockWeights> blocks_;
  std::vector<BlockCache> caches_;
};

int32_t pick(const float* chances, int vocab, bool greedy, double u) {
  if (greedy) {
    return static_cast<int32_t>(
        std::max_element(chances, chances + vocab) - chances);
  }
  double total = 0;
  for (int i = 0; i < vocab; ++i) {
    total += chances[i];
  }
  if (!std::isfinite(total) || total <= 0) {
    throw numeric_error(
        "sample",
        "the model gives no finite probabilities; its weights are damaged");
  }
  double left = u * total;
  int32_t last = 0;
  for (int i = 0; i < vocab; ++i) {
    if (chances[i] > 0) {
      last = i;
      left -= chances[i];
      if (left < 0) {
        break;
      }
    }
  }
  return last;
}

}  // namespace

Sequences sample_sequences(
    const Model& model,
    int num_samples,
    int sequence_length,
    uint64_t seed,
    const SampleSettings& settings,
    const ProgressFn& progress) {
  if (num_samples < 1 || sequence_length < 1 || settings.batch < 1) {
    throw argument_error(
        "sample", "the number of samples and their length must be positive");
  }
  std::mt19937_64 random(seed);
  int vocab = static_cast<int>(model.spec.vocab);
  bool greedy = settings.temperature <= 0;
  Generator generator(model, settings.temperature);
  int64_t total = int64_t{num_samples} * sequence_length;
  Sequences sequences;
  while (static_cast<int>(sequences.size()) < num_samples) {
    int batch = std::min<int>(
        settings.batch, num_samples - static_cast<int>(sequences.size()));
    std::vector<int32_t> last;
    for (int i = 0; i < batch; ++i) {
      last.push_back(
          settings.bos.value_or(static_cast<int32_t>(uniform(random) * vocab)));
    }
    Sequences fresh;
    for (int32_t token : last) {
      fresh.push_back({token});
    }
    generator.restart();
    for (int length = 1; length < sequence_length; ++length) {
      auto chances = generator.step(last, batch);
      for (int i = 0; i < batch; ++i) {
        bool ended = settings.bos && last[i] != *settings.bos &&
            std::ranges::count(settings.ends, last[i]) > 0;
        const float* row = chances.data<float>() + int64_t{i} * vocab;
        int32_t next = pick(row, vocab, greedy, uniform(random));
        last[i] = ended ? *settings.bos : next;
        fresh[i].push_back(last[i]);
      }
      int64_t done = static_cast<int64_t>(sequences.size()) * sequence_length +
          int64_t{batch} * (length + 1);
      report(progress, {"sample", done, total, "tokens", ""});
    }
    sequences.insert(sequences.end(), fresh.begin(), fresh.end());
  }
  return sequences;
}

Sequences continue_sequences(
    const Model& model,
    const Sequences& prompts,
    int count,
    const ProgressFn& progress) {
  const size_t length = prompts.empty() ? 0 : prompts.front().size();
  for (const auto& prompt : prompts) {
    if (prompt.empty() || prompt.size() != length) {
      throw argument_error(
          "sample", "prompts have to be of one length, and not empty");
    }
  }
  Sequences fresh(prompts.size());
  if (prompts.empty()) {
    return fresh;
  }
  const int vocab = static_cast<int>(model.spec.vocab);
  const int batch = static_cast<int>(prompts.size());
  Generator generator(model, 0);
  generator.restart();
  std::vector<int32_t> next;
  for (const auto& prompt : prompts) {
    next.insert(next.end(), prompt.begin(), prompt.end());
  }
  for (int done = 1; done <= count; ++done) {
    const auto chances = generator.step(next, batch);
    next.clear();
    for (int i = 0; i < batch; ++i) {
      const float* row = chances.data<float>() + int64_t{i} * vocab;
      next.push_back(pick(row, vocab, true, 0));
      fresh[static_cast<size_t>(i)].push_back(next.back());
    }
    report(progress, {"sample", done, count, "tokens"});
  }
  return fresh;
}

SampleSelfFn self_sampler(
    const Model& model,
    const TokenizerFacts& tokenizer,
    const ProgressFn& progress) {
  return [&model, tokenizer, &progress](
             int num_samples, int sequence_length, uint64_t seed) {
    SampleSettings settings;
    settings.bos = tokenizer.bos_id;
    if (tokenizer.eos_id) {
      settings.ends.push_back(*tokenizer.eos_id);
    }
    return sample_sequences(
        model, num_samples, sequence_length, seed, settings, progress);
  };
}

}  // namespace pennyweight
