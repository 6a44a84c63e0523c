#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/json_fwd.h"
#include "core/machine_load.h"
#include "core/progress.h"
#include "model/model.h"

namespace pennyweight {

/// Seconds of work on linears with so many inputs. A row is one output.
struct WidthRates {
  double factor = 0;        // to factor the Hessian
  double round = 0;         // a row: by GPTQ with all its parts
  double pass = 0;          // a row: by GPTQ's pass alone
  double loss = 0;          // a row: what a rounding has lost
  double nearest_loss = 0;  // a row: what rounding to nearest loses
  double nearest = 0;       // a row: rounding to nearest
  double expand = 0;        // a row: packed weights to dense ones
  double learn = 0;         // a row: a step of learned rounding
};

/// All of them: how a report names each, and the power of the inputs that it
/// grows with.
struct WidthRate {
  const char* name;
  double WidthRates::*value;
  int power = 1;
};
inline constexpr WidthRate kWidthRates[] = {
    {"factor", &WidthRates::factor, 2},
    {"round_row", &WidthRates::round},
    {"pass_row", &WidthRates::pass},
    {"loss_row", &WidthRates::loss},
    {"nearest_loss_row", &WidthRates::nearest_loss},
    {"nearest_row", &WidthRates::nearest},
    {"expand_row", &WidthRates::expand},
    {"learn_row", &WidthRates::learn}};

/// Of one kind of block.
struct BlockRates {
  double load = 0;         // to read and check it
  double forward = 0;      // a token
  double costs = 0;        // a token: back through it, with the costs' sums
  double walk = 0;         // a token: two streams and the sums for GPTQ
  double walk_sums = 0;    // what these sums take for any text
  double learn = 0;        // a token: gradients by the weights
  double distil = 0;       // a token: a step of the student
  double next = 0;         // a step of generation
  double next_packed = 0;  // the same with packed weights
};

/// Of the embedding and the head; a token's over the whole vocabulary.
struct HeadRates {
  double load = 0;        // to read and check both
  double score = 0;       // two models' logits, scored
  double divergence = 0;  // the KL between two models
  double fisher = 0;      // the costs' gradients
  double distil = 0;      // the KL and its gradients
  double next = 0;        // a step of generation
};

/// Seconds that kinds of work take on this machine.
struct MachineRates {
  std::map<int64_t, WidthRates> widths;  // by inputs
  std::map<int64_t, WidthRates> tables;  // of embedding and head
  std::vector<BlockRates> kinds;
  std::vector<size_t> kind;  // of each block
  HeadRates head;
  double write = 0;   // a byte
  double start = 0;   // tokenizer
  double spread = 0;  // see spread_of()
  MachineLoad load;
  int threads = 1;
  double seconds = 0;  // that measuring took

  const BlockRates& block(size_t index) const {
    return kinds.at(kind.at(index));
  }
  /// See describe_load().
  std::string warning() const {
    return describe_load(load, threads, spread);
  }
};

Json to_json(const MachineRates& rates);

/// Which blocks take alike: the number of each one's kind, and of each kind
/// the block in its middle.
struct BlockKinds {
  std::vector<size_t> kind;
  std::vector<size_t> sample;
};
BlockKinds block_kinds(const DecoderSpec& spec, int sequence_length);

/// Between two widths, and beyond them, by the power of the width that work
/// grows with: `power` or one more.
double at_width(
    int64_t width,
    const std::pair<int64_t, double>& narrow,
    const std::pair<int64_t, double>& wide,
    int power);

/// Does a sample of each kind of work, on the model's own weights and by the
/// functions that a run uses: one block of each kind on a batch, some rows of
/// linears of each width, some of the vocabulary. A few seconds. Errors as
/// load_block's, numeric for weights that are not finite, cancelled.
MachineRates measure_rates(
    const Model& model,
    int sequence_length,
    const ProgressFn& progress = {});

}  // namespace pennyweight
