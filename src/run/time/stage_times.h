#pragma once

#include <cstdint>
#include <vector>

#include "method/chain.h"
#include "run/time/machine_rates.h"
#include "run/width_plan.h"

namespace pennyweight {

/// What each stage of `quantize` does, counted and multiplied by what it takes:
/// seconds.
class StageTimes {
 public:
  /// Without `widths` all that can be quantized is, and every block's rounding
  /// is learned where any is. All must outlive this.
  StageTimes(
      const Model& model,
      const StageSizes& sizes,
      int sequence_length,
      const MachineRates& rates,
      const WidthPlan* widths = nullptr);

  double costs() const;
  double nearest() const;
  double gptq() const;
  /// A walk of its own, GPTQ's included.
  double learned() const;
  /// Of that the steps.
  double learned_steps() const;
  double dwq() const;
  double report() const;

 private:
  double table_costs() const;
  /// The way forward through each block and back, of costs.
  std::vector<double> cost_blocks() const;
  /// A block's operations, in seconds.
  double seconds_of(const BlockOperations& work, size_t block) const;
  double forward(double tokens) const;
  double expand_all() const;
  /// What is summed over linears of a block.
  template <class F>
  double over_block(size_t block, F&& seconds) const;
  double table_fit() const;
  double weigh_block(size_t block) const;
  /// A walk of the stage's method, through one block and through all.
  double walk_block(const BlockMethod& method, size_t block) const;
  double walk(const char* name) const;
  double evaluate(double tokens, bool reference) const;
  double tokens(double sequences) const {
    return sequences * length_;
  }
  const WidthRates& width(int64_t in) const {
    return rates_.widths.at(in);
  }

  const Model& model_;
  const StageSizes& sizes_;
  double length_;
  const MachineRates& rates_;
  std::vector<ModuleSpec> tables_;
  std::vector<std::vector<ModuleSpec>> blocks_;
  std::vector<bool> learned_;  // by block
  double bytes_ = 0;           // of the output
};

/// Steps of distillation, and of the trials that choose its rate.
struct DistillationSteps {
  int64_t steps = 0;
  int64_t trials = 0;
};
DistillationSteps distillation_steps(const StageSizes& sizes);

}  // namespace pennyweight
