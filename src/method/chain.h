#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "method/block_method.h"

/// What `quantize` does, as data: stages, one after the other, of which each is
/// kept only where it lowers the KL.
namespace pennyweight {

/// How much an effort does in each stage of `quantize`. Sequences are of the
/// mix's `fit`, those of gates of its `gate`.
struct StageSizes {
  int cost_sequences = 16;    // on which widths are chosen
  int cost_row_step = 1;      // see CostSettings::row_step
  int gate_sequences = 16;    // by which stages are kept
  int block_gate = 16;        // and of them, by which blocks are
  int report_sequences = 16;  // of the mix's report
  int gptq_sequences = 64;    // GPTQ's, and the learned rounding's
  int fold_every = 0;         // blocks between trials of AWQ's folding; 0: none
  int learn_steps = 0;        // 0: no learned rounding
  int dwq_sequences = 0;      // 0: no distillation
  int dwq_epochs = 1;
  std::optional<double> dwq_rate{};  // absent: chosen by trial

  int fit_sequences() const {
    return std::max({cost_sequences, gptq_sequences, dwq_sequences});
  }
};

/// All sizes but dwq_rate, by their names in JSON. `least` is the least value
/// that a recipe may give; -1 where recipes do not have the size.
struct StageSize {
  const char* name;
  int StageSizes::*value;
  int least = -1;
};
inline constexpr StageSize kStageSizes[] = {
    {"cost_sequences", &StageSizes::cost_sequences},
    {"cost_row_step", &StageSizes::cost_row_step},
    {"gate_sequences", &StageSizes::gate_sequences},
    {"block_gate", &StageSizes::block_gate, 1},
    {"report_sequences", &StageSizes::report_sequences},
    {"gptq_sequences", &StageSizes::gptq_sequences, 1},
    {"fold_every", &StageSizes::fold_every, 0},
    {"learn_steps", &StageSizes::learn_steps, 0},
    {"dwq_sequences", &StageSizes::dwq_sequences, 0},
    {"dwq_epochs", &StageSizes::dwq_epochs, 1}};

/// The stages that efforts have. Another method of the registry is a stage of
/// its own by its name.
namespace stage {
inline constexpr const char* kRtn = "nearest";
inline constexpr const char* kGptq = "gptq";
inline constexpr const char* kLearned = "learned";
inline constexpr const char* kDwq = "dwq";
}  // namespace stage

struct ChainStage {
  enum class Kind {
    rtn,     // rounds to nearest, without text
    blocks,  // a BlockMethod on the first sequences of the text
    distill  // trains the best model so far towards the full one
  };
  std::string name;
  std::string title;  // of reports
  Kind kind = Kind::blocks;
};

/// All stages of an effort, in their order.
const std::vector<ChainStage>& default_chain();

/// The stages of these names, in this order. invalid_argument, by the flag
/// `origin`, for a name that is neither one of the default chain's nor a
/// method's, for one that comes twice, for a chain that does not begin with one
/// that rounds, and for one that goes on after distilling.
std::vector<ChainStage> make_chain(
    const std::vector<std::string>& names,
    const std::string& origin);

/// Whether these sizes leave anything to do for it.
bool has_work(const ChainStage& stage, const StageSizes& sizes);

/// What rounds the blocks of a stage, and in `options` all that affects its
/// result.
struct StageMethod {
  std::shared_ptr<BlockMethod> method;
  Json options;
};
StageMethod make_stage(const ChainStage& stage, const StageSizes& sizes);

}  // namespace pennyweight
