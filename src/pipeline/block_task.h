#pragma once

#include <vector>

#include "core/progress.h"
#include "format/quant_plan.h"
#include "method/stage.h"
#include "model/model.h"
#include "model/weights.h"
#include "pipeline/ranks.h"

namespace pennyweight {

/// What a walk hands to the task of one block; all outlive it.
struct WalkState {
  std::string stage;  // names the progress
  const Model& model;
  const QuantPlan& plan;
  const Ranks& ranks;
  const std::vector<TokenBatch>& batches;
  size_t fit_batches;
  bool held_out;
  BlockStream& full;
  BlockStream* quantized;  // null: inputs are the full-precision model's
  const ProgressFn& progress;
};

/// One block under way: loads its weights, enters the streams, and leaves
/// them at the block's end.
class WalkTask : public BlockTask {
 public:
  WalkTask(const WalkState& state, const BlockSpec& spec);

  const BlockSpec& spec() const override {
    return spec_;
  }
  const std::vector<LinearGroup>& groups() const override {
    return groups_;
  }
  const QuantSpec& quant_spec(const std::string& path) const override;
  mx::array weight(const std::string& path) const override;
  mx::Dtype dtype() const override {
    return state_.model.dtype;
  }
  InputStatistics statistics(const LinearGroup& group) override;
  bool has_held_out() const override {
    return state_.held_out;
  }
  double held_out_error(const PackedBlock& weights) override;
  void set(const std::string& path, const ops::QuantizedWeight&) override;

  /// Brings the streams to the block's output with what was set. corrupt
  /// use is an invalid_argument Error: a linear of the plan that was never
  /// set.
  void finish();
  const PackedBlock& result() const {
    return packed_;
  }

 private:
  BlockWeights with(const PackedBlock& weights) const;
  void move_past(BlockStep step);
  void complete();

  WalkState state_;
  const BlockSpec& spec_;
  std::vector<LinearGroup> groups_;
  BlockWeights full_weights_;
  BlockWeights weights_;  // of the quantized stream
  PackedBlock packed_;
  size_t next_step_ = 0;
  bool completed_ = false;
  bool changed_ = false;  // since it was completed
};

/// The linears of `block` that `plan` quantizes, by what they read.
std::vector<LinearGroup> list_groups(
    const BlockSpec& block,
    const QuantPlan& plan);

}  // namespace pennyweight
