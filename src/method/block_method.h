#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_spec.h"
#include "model/scale_groups.h"
#include "model/spec/decoder_spec.h"
#include "pass/statistics.h"

namespace pennyweight {

/// Packed weights of a block's linears, by module path.
using PackedBlock = std::map<std::string, ops::QuantizedWeight>;

/// The linears of a block that read one input, in the order of the forward
/// pass; only those that are to be quantized.
struct LinearGroup {
  size_t step;  // of block_steps()
  std::vector<ModuleSpec> modules;
};

/// Float weights in place of a block's linears, by module path, [out, in].
using DenseBlock = std::map<std::string, mx::array>;

/// What a method wants to know of a group's inputs.
struct StatisticsWanted {
  bool shifts = false;  // input_shift and output_shift
  bool magnitudes = false;
  /// Experts are given the sum over all of them, not their own.
  bool experts_together = false;
};

/// The batches of the text that statistics are made of.
struct FitText {
  std::vector<int64_t> tokens;  // of each of this process's batches
  int processes = 1;
};

/// An error of the block and, times `factor`, its gradients by some of its
/// weights, float32 [out, in], evaluated.
struct BlockGradient {
  double error = 0;
  double factor = 1;
  DenseBlock gradients;
};

/// The diagonal of the second derivative of a loss by a weight [out, in], as
/// the product of a number for each output and one for each input.
struct Curvature {
  std::vector<float> rows;
  std::vector<float> columns;
};

/// A block's linears: what is to be quantized, and what was.
class BlockModules {
 public:
  virtual ~BlockModules() = default;

  virtual const BlockSpec& spec() const = 0;
  virtual const std::vector<LinearGroup>& groups() const = 0;
  virtual const QuantSpec& quant_spec(const ModuleSpec& module) const = 0;
  /// The full-precision weight, with what was folded into it, float32 [out,
  /// in], evaluated.
  virtual mx::array weight(const std::string& path) const = 0;
  /// The type of scales and biases.
  virtual mx::Dtype dtype() const = 0;
  /// The dense weights that a packed one stands for, in dtype().
  virtual mx::array expand(const ops::QuantizedWeight& weight) const = 0;
  /// Makes `weight` the linear's. One that was set may be set again once all
  /// are; the block is then run anew.
  virtual void set(const std::string& path, const ops::QuantizedWeight&) = 0;
  /// What was set.
  virtual const PackedBlock& packed() const = 0;
};

/// What the linears of a block read.
class BlockInputs {
 public:
  virtual ~BlockInputs() = default;

  /// What the group's linears read while the linears that were set so far run
  /// packed; an expert's are those of the tokens that chose it. Ask once for
  /// each group, in their order, and restart() to ask again. A linear that is
  /// set after a later group was asked for does not change that group's.
  virtual InputStatistics statistics(
      const LinearGroup& group,
      const StatisticsWanted& wanted) = 0;
  /// Back to the block's inputs, to ask for statistics anew.
  virtual void restart() = 0;
  /// Calls `work`, which leaves MLX alone. Where a GPU runs MLX's ops, it does
  /// so on another thread, and the full-precision model goes on beside it, to
  /// what the next group reads there.
  virtual void overlap(const std::function<void()>& work) = 0;
  virtual FitText fit_text() const = 0;
};

/// How far a block's output is from the full-precision block's. An error is
/// the mean over tokens of |y - y_full|^2 / |y_full|^2, y the output. Linears
/// that are not among the weights given are as weight() gives them. Folded
/// scales are in the weights, as they are in weight().
class BlockErrors {
 public:
  virtual ~BlockErrors() = default;

  /// Whether there is text that no statistics were made of.
  virtual bool has_held_out() const = 0;
  /// The error with `weights` for the block's linears, on held-out text.
  virtual double held_out_error(const DenseBlock& weights) = 0;
  /// Of what was set, once every linear is.
  virtual double held_out_error() = 0;
  /// The same on a part of the text that statistics are made of.
  virtual double fit_error(const DenseBlock& weights) = 0;
  /// The same error on some of fit_text()'s batches, and its gradients by the
  /// weights of `paths`; over all processes, each of which names batches of its
  /// own. Only after the statistics of all groups were asked for.
  virtual BlockGradient gradient(
      const DenseBlock& weights,
      const std::vector<std::string>& paths,
      const std::vector<size_t>& batches) = 0;
  /// And its curvature by them, in Gauss and Newton's form, estimated by as
  /// many random gradients as there are batches.
  virtual std::map<std::string, Curvature> curvature(
      const DenseBlock& weights,
      const std::vector<std::string>& paths,
      const std::vector<size_t>& batches,
      uint64_t seed) = 0;
};

/// Scales that go from the inputs of linears into the op before them: the
/// block's function stays.
class BlockFolding {
 public:
  virtual ~BlockFolding() = default;

  /// False where a linear came packed and stays as it is.
  virtual bool can_fold(const ScaleGroup& group) const = 0;
  /// What fold() takes for the scales wished for: the op before rounds.
  virtual std::vector<float> foldable(
      const ScaleGroup& group,
      const std::vector<float>& scales) const = 0;
  /// Divides the previous op of one of list_scale_groups() by `scales`
  /// [channels], as foldable() gives them, and multiplies its linears' columns.
  /// From then on weight() gives the folded weights.
  virtual void fold(
      const ScaleGroup& group,
      const std::vector<float>& scales) = 0;
  /// Undoes every fold().
  virtual void unfold() = 0;
};

/// What a method is given of one block.
class BlockTask : public BlockModules,
                  public BlockInputs,
                  public BlockErrors,
                  public BlockFolding {};

/// Weights of the block's linears, but for what is published packed.
int64_t count_weights(const BlockSpec& block);
/// What the packed weights of a block stand for, in the task's type.
DenseBlock expand_all(const BlockTask& task, const PackedBlock& packed);
/// Makes them the linears'.
void set_all(BlockTask& task, const PackedBlock& packed);
/// The error on held-out text where there is some, else on text that statistics
/// are made of.
double judged_error(BlockTask& task, const DenseBlock& weights);

/// How every report names rounding to nearest, against which ways are held.
inline constexpr const char* kRtn = "round to nearest";

/// What became of a block.
struct BlockFigures {
  /// The way that was kept, where a method tries several; empty where it has
  /// one.
  std::string kept{};
  /// By way, where text was held out and ways were compared.
  std::map<std::string, double> held_out_error{};
  /// What only this method has to tell.
  Json details = Json::object();
  /// What a user should be told: something clamped, dropped or raised.
  std::vector<std::string> warnings{};

  /// Of what was kept; absent where it was not measured.
  std::optional<double> error() const;
};

/// One object, `details` among the keys of the rest.
Json to_json(const BlockFigures& figures);
BlockFigures block_figures_from_json(const Json& json);

/// What a method must be fed with.
struct MethodNeeds {
  /// Inputs as the blocks before, quantized already, give them, beside the
  /// full-precision model's. Else the full-precision model's alone.
  bool quantized_inputs = true;
  /// Text kept out of the statistics.
  bool held_out = true;
  /// restart(), or errors of a block whose statistics are not all asked for.
  bool restarts = false;
};

/// Tokens of a run's text.
struct TextSize {
  double fit = 0;       // that statistics are made of
  double held_out = 0;  // that ways are compared by
};

/// What a method does in one block, counted. How long each operation takes is
/// measured on the machine (run/time). The values are those of one that rounds
/// each linear to nearest, once it has seen what the block reads.
struct BlockOperations {
  /// Times that the text goes through, with the sums of statistics().
  double walks = 1;
  double forward = 0;    // tokens that go through beside that
  double gradients = 0;  // tokens that go through and back, by the weights
  /// Times for all of the block's linears.
  double factored = 0;       // a Hessian is factored
  double gptq = 0;           // rounded by GPTQ with all its parts
  double nearest = 1;        // rounded to nearest
  double expanded = 1;       // packed weights made dense
  double learned_steps = 0;  // of learned rounding
};

/// A method that quantizes a block at a time. It never loops over blocks and
/// never touches files.
class BlockMethod {
 public:
  virtual ~BlockMethod() = default;
  virtual std::string name() const = 0;
  virtual MethodNeeds needs() const = 0;
  /// Most bytes that run() holds beside statistics and weights of one group.
  virtual int64_t working_bytes(const BlockSpec& block) const = 0;
  /// What run() does in this block, from which its time is estimated.
  virtual BlockOperations operations(
      const BlockSpec& block,
      const TextSize& text) const {
    (void)block;
    (void)text;
    return {};
  }
  /// Sets every linear of the task's groups.
  virtual BlockFigures run(BlockTask& task) = 0;
  /// In place of run(), for a block that an earlier run has finished, with its
  /// figures: for what a method learns of one block for the next.
  virtual void resume(const BlockFigures& figures) {
    (void)figures;
  }
};

}  // namespace pennyweight
