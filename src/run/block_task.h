#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/progress.h"
#include "format/quant_plan.h"
#include "method/block_method.h"
#include "method/packed_block.h"
#include "model/model.h"
#include "model/weights.h"
#include "pass/expert_statistics.h"
#include "pass/process_group.h"

namespace pennyweight {

/// What a walk hands to the task of one block; all outlive it.
struct WalkState {
  std::string stage;  // names the progress
  const Model& model;
  const QuantPlan& plan;
  const ProcessGroup& ranks;
  const std::vector<TokenBatch>& batches;
  size_t fit_batches;
  bool held_out;
  BlockStream& full;
  BlockStream* quantized;  // null: inputs are the full-precision model's
  const ProgressFn& progress;
  bool overlaps = false;  // a method's own work and the full stream
};

/// A stream on its way through one block.
class StreamWalk {
 public:
  StreamWalk(BlockStream& stream, size_t batches)
      : stream_(stream), batches_(batches) {}

  BlockStream& stream() {
    return stream_;
  }
  /// Steps that all batches have passed.
  size_t next() const {
    return next_;
  }
  bool at_end() const {
    return at_end_;
  }
  /// Takes one batch on: through the step that not all have passed, or to the
  /// block's output. Not at_end().
  void advance();
  /// Takes all batches through the steps before `step`.
  void move_to(size_t step);
  /// Takes the batch through the step, unless it has passed it. To be called
  /// for the batches in order, once all have passed the steps before.
  void pass(size_t step, size_t batch);
  /// To the block's output.
  void complete();
  void restart();

 private:
  BlockStream& stream_;
  size_t batches_;
  size_t next_ = 0;
  size_t passed_ = 0;  // batches that have passed step next_, too
  bool at_end_ = false;
};

/// The part of its inputs' width that is few tokens for an expert.
inline constexpr int64_t kFewTokens = 4;

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
  const QuantSpec& quant_spec(const ModuleSpec& module) const override;
  mx::array weight(const std::string& path) const override;
  mx::Dtype dtype() const override {
    return state_.model.dtype;
  }
  InputStatistics statistics(
      const LinearGroup& group,
      const StatisticsWanted& wanted) override;
  void overlap(const std::function<void()>& work) override;
  bool has_held_out() const override {
    return state_.held_out;
  }
  double held_out_error(const DenseBlock& weights) override;
  double held_out_error() override;
  double fit_error(const DenseBlock& weights) override;
  FitText fit_text() const override;
  BlockGradient gradient(
      const DenseBlock& weights,
      const std::vector<std::string>& paths,
      const std::vector<size_t>& batches) override;
  std::map<std::string, Curvature> curvature(
      const DenseBlock& weights,
      const std::vector<std::string>& paths,
      const std::vector<size_t>& batches,
      uint64_t seed) override;
  mx::array expand(const ops::QuantizedWeight& weight) const override;
  std::vector<float> foldable(
      const ScaleGroup& group,
      const std::vector<float>& scales) const override;
  bool can_fold(const ScaleGroup& group) const override;
  void fold(const ScaleGroup& group, const std::vector<float>& scales) override;
  void unfold() override;
  void restart() override;
  const PackedBlock& packed() const override {
    return packed_;
  }
  void set(const std::string& path, const ops::QuantizedWeight&) override;

  /// Brings the streams to the block's output with what was set.
  /// invalid_argument Error for a linear of the plan that was never set.
  void finish();
  /// The tensors of the block that are not as in the checkpoint, as the
  /// output names them: packed weights, and floats that scales were folded
  /// into.
  std::map<std::string, mx::array> result() const;
  /// How many tokens chose each expert, if they were asked for, and what a
  /// user should be told of it.
  Json coverage(std::vector<std::string>& warnings) const;

 private:
  StreamWalk& inputs() {
    return quantized_ ? *quantized_ : full_;
  }
  /// The block with `weights` for its linears.
  BlockWeights with(const DenseBlock& weights) const;
  double error(const DenseBlock& weights, size_t first, size_t last);
  double error_of(
      size_t first,
      size_t last,
      const std::function<mx::array(size_t)>& output) const;
  /// Of the group that the linear belongs to.
  size_t index_of(const std::string& path) const;
  std::optional<mx::array> divisors_of(const ModuleSpec& module) const;
  /// Over all ranks.
  InputStatistics summed(InputStatistics sums) const;
  BlockGradient summed(
      const std::vector<std::string>& paths,
      double error,
      double tokens,
      DenseBlock sums) const;
  InputStatistics expert_statistics(
      const LinearGroup& group,
      const StatisticsWanted& wanted,
      bool shifts);
  void follow_source(const std::set<std::string>& modules);
  /// Steps that the full stream may pass before the next group is asked for.
  size_t steps_ahead() const;
  /// An expert with fewer tokens is fitted to others, too.
  int64_t few_tokens() const {
    return spec_.moe->experts.up.in / kFewTokens;
  }

  WalkState state_;
  const BlockSpec& spec_;
  std::vector<LinearGroup> groups_;
  BlockWeights full_weights_;
  BlockWeights source_;   // what is to be quantized: full, with scales folded
  BlockWeights weights_;  // of the quantized stream
  PackedBlock packed_;
  std::set<std::string> published_;  // paths of linears that stay packed
  std::set<std::string> folded_;     // names of tensors
  // By input_id: what folded scales have divided it by.
  std::map<std::string, mx::array> divisors_;
  std::optional<ExpertTokens> expert_tokens_;
  // Of experts whose turn comes next, by input_id.
  std::map<std::string, InputStatistics> expert_sums_;
  StreamWalk full_;
  std::optional<StreamWalk> quantized_;
  size_t asked_ = 0;      // groups whose statistics were asked for
  double unit_ = 0;       // of gradients, see gradient()
  bool changed_ = false;  // a weight that the quantized stream has passed
};

/// What one pass holds of experts' statistics; one expert's at least.
inline constexpr int64_t kExpertSums = int64_t{256} << 20;
/// Bytes of one expert's.
int64_t expert_bytes(const ModuleSpec& expert, bool shifts);

}  // namespace pennyweight
