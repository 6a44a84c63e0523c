#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calibration/statistics.h"
#include "core/json.h"
#include "format/quant_spec.h"
#include "model/decoder_spec.h"

namespace pennyweight {

/// Packed weights of a block's linears, by module path.
using PackedBlock = std::map<std::string, ops::QuantizedWeight>;

/// The linears of a block that read one input, in the order of the forward
/// pass; only those that are to be quantized.
struct LinearGroup {
  BlockStep step;
  std::vector<ModuleSpec> modules;
};

/// What a stage is given of one block.
class BlockTask {
 public:
  virtual ~BlockTask() = default;

  virtual const BlockSpec& spec() const = 0;
  virtual const std::vector<LinearGroup>& groups() const = 0;
  virtual const QuantSpec& quant_spec(const std::string& path) const = 0;
  /// The full-precision weight, float32 [out, in], evaluated.
  virtual mx::array weight(const std::string& path) const = 0;
  /// The type of scales and biases.
  virtual mx::Dtype dtype() const = 0;

  /// What the group's linears read, at the weights set so far. To be asked
  /// once for each group, in order, the groups before having been set.
  virtual InputStatistics statistics(const LinearGroup& group) = 0;
  /// Whether there is text that no statistics were made of.
  virtual bool has_held_out() const = 0;
  /// Error of the block with `weights` for its linears on held-out text: the
  /// mean over tokens of |y - y_full|^2 / |y_full|^2, y its output.
  virtual double held_out_error(const PackedBlock& weights) = 0;
  /// Makes `weight` the linear's. One that was set may be set again once all
  /// are; the block is then run anew.
  virtual void set(const std::string& path, const ops::QuantizedWeight&) = 0;
};

/// What became of a block: figures for the report, and what a user should be
/// told (warnings: something clamped, dropped or raised).
struct BlockOutcome {
  Json figures = Json::object();
  std::vector<std::string> warnings;
};

/// What a stage must be fed with.
struct StageNeeds {
  /// Inputs as the blocks before, quantized already, give them, beside the
  /// full-precision model's. Else the full-precision model's alone.
  bool quantized_inputs = true;
  /// Text kept out of the statistics.
  bool held_out = true;
};

/// A method: it never loops over blocks and never touches files.
class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string name() const = 0;
  virtual StageNeeds needs() const = 0;
  /// Most bytes that run() holds beside statistics and weights of one group.
  virtual int64_t working_bytes(const BlockSpec& block) const = 0;
  virtual BlockOutcome run(BlockTask& task) = 0;
};

}  // namespace pennyweight
