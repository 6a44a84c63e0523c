#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/progress.h"
#include "model/model.h"
#include "text/text_reader.h"

namespace pennyweight {

struct SampleSettings {
  int batch = 32;         // sequences generated at a time
  float temperature = 1;  // 0: always the likeliest token
  /// Begins each sequence, and follows a sampled end; a random token where
  /// the tokenizer has none.
  std::optional<int32_t> bos;
  std::vector<int32_t> ends;
};

/// Text from the model itself, for calibration without data: num_samples
/// sequences of sequence_length tokens, the same for a seed and machine.
/// Weights are read from the mapped file; memory grows with the cache of one
/// batch. numeric Error when the model gives no finite probabilities.
std::vector<std::vector<int32_t>> sample_sequences(
    const Model& model,
    int num_samples,
    int sequence_length,
    uint64_t seed,
    const SampleSettings& settings = {},
    const ProgressFn& progress = {});

/// The likeliest `count` tokens after each of the prompts, which are of one
/// length.
std::vector<std::vector<int32_t>> continue_sequences(
    const Model& model,
    const std::vector<std::vector<int32_t>>& prompts,
    int count,
    const ProgressFn& progress = {});

/// sample_sequences as load_data's source `self`, with the tokenizer's
/// beginning and end; model and progress must outlive the result.
SampleSelfFn self_sampler(
    const Model& model,
    const TokenizerFacts& tokenizer,
    const ProgressFn& progress);

}  // namespace pennyweight
