#pragma once

#include <map>

#include "format/quant_plan.h"
#include "pass/block_stream.h"
#include "run/time/machine_rates.h"
#include "run/time/rate_sampler.h"
#include "run/time/width_rates.h"

namespace pennyweight {

/// Times the work on one block of the model with a batch that stands for its
/// text, and keeps a linear of each width that it has not seen.
class BlockProbe {
 public:
  /// All must outlive this.
  BlockProbe(
      const Model& model,
      const BlockSpec& spec,
      const std::vector<TokenBatch>& batches,
      const EmbeddingAndHead& tables,
      RateSampler& sampler);

  BlockRates measure(std::map<int64_t, WidthSample>& widths);

 private:
  void measure_walk(BlockRates& rates, std::map<int64_t, WidthSample>& widths);
  /// Seconds of a batch, and of the sums for any text.
  struct Walk {
    double batch = 0;
    double sums = 0;
  };
  Walk walk(
      const QuantPlan& plan,
      BlockStream& full,
      BlockStream& quantized,
      std::map<int64_t, WidthSample>& widths);
  Walk walk_experts(
      const QuantPlan& plan,
      BlockStream& full,
      BlockStream& quantized,
      std::map<int64_t, WidthSample>& widths);
  void measure_gradients(BlockRates& rates);
  void measure_generation(BlockRates& rates);

  const Model& model_;
  const BlockSpec& spec_;
  const std::vector<TokenBatch>& batches_;
  const EmbeddingAndHead& tables_;
  RateSampler& sampler_;
  ForwardContext context_;
  BlockWeights weights_;
  std::map<std::string, ops::QuantizedWeight> packed_;
  mx::array x_;
  mx::array dy_;  // by what the block gives
};

}  // namespace pennyweight
