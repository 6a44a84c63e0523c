#pragma once

#include <string>

#include "model/families/standard.h"

namespace pennyweight {

/// Names of an expert's three matrices where a checkpoint holds the experts
/// one by one; and those of the router and the stacks in mlx-lm.
struct ExpertNames {
  const char* gate = "gate_proj";
  const char* up = "up_proj";
  const char* down = "down_proj";
  const char* router = "gate";
  const char* stacks = "switch_mlp";
};

/// How many experts there are, and how many of them each token chooses.
struct ExpertCounts {
  int count = 0;
  int chosen = 0;
};
/// Reads these from the keys `key` and `chosen` (corrupt Error out of range).
ExpertCounts read_expert_counts(
    const JsonView& config,
    const char* key,
    const char* chosen = "num_experts_per_tok");

/// Experts under `path`: the router path.gate and the stacks path.switch_mlp.*,
/// or by other `names`. Adds to `spec` the sources of stacks that the
/// checkpoint holds as path.experts.N.*. The scores are left to the family.
MoeSpec standard_moe(
    const std::string& path,
    int64_t hidden,
    int64_t wide,
    const ExpertCounts& counts,
    DecoderSpec& spec,
    const ExpertNames& names = {});

/// Reads n_group and topk_group, which may be absent. Groups are compared by
/// the sum of their two highest scores.
void read_groups(const JsonView& config, MoeSpec& moe);

/// Sets whether the experts' matrices have biases.
void set_expert_biases(MoeSpec& moe, bool bias);

/// Makes the router that of DeepSeek-V3: sigmoid scores, a correction for the
/// choice, groups; a plain matrix that is never packed.
void read_corrected_router(
    const JsonView& config,
    const std::string& path,
    MoeSpec& moe);

}  // namespace pennyweight
