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

/// Numbers of experts and of those that a token takes, by the keys that hold
/// them (corrupt Error out of range).
struct ExpertCounts {
  int count = 0;
  int chosen = 0;
};
ExpertCounts read_expert_counts(
    const JsonView& config,
    const char* key,
    const char* chosen = "num_experts_per_tok");

/// Experts under `path`: the router path.gate and stacks in path.switch_mlp, or
/// as `names` call them; the checkpoint may hold path.experts.N.* instead (told
/// to `spec`). The scores are left to the family.
MoeSpec standard_moe(
    const std::string& path,
    int64_t hidden,
    int64_t wide,
    const ExpertCounts& counts,
    DecoderSpec& spec,
    const ExpertNames& names = {});

/// n_group and topk_group, which may be absent, for groups that count by the
/// two highest of their experts.
void read_groups(const JsonView& config, MoeSpec& moe);

/// Whether the experts' matrices have biases.
void set_expert_biases(MoeSpec& moe, bool bias);

/// The router of DeepSeek-V3 and its heirs: sigmoid scores, a correction for
/// the choice, groups; a plain matrix that is never packed.
void read_corrected_router(
    const JsonView& config,
    const std::string& path,
    MoeSpec& moe);

}  // namespace pennyweight
