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

/// Experts in place of a block's MLP, and the shared ones beside them: under
/// `path` the router and stacks, as `names` call them. The checkpoint may hold
/// path.experts.N.* instead.
struct ExpertLayer {
  ExpertCounts counts{};
  int64_t wide = 0;    // 0: as wide as the MLP was
  int64_t shared = 0;  // of all shared ones together; 0: there are none
  const char* path = ".mlp";
  const char* shared_path = ".shared_experts";
  bool bias = false;
  bool shared_bias = false;
  ExpertNames names{};
};
/// Puts the experts into the block and adds the sources of their stacks to
/// `spec`. Returns the block's MoeSpec, whose scores are left to the family.
MoeSpec&
put_experts(const ExpertLayer& layer, BlockSpec& block, DecoderSpec& spec);

/// Has the parameter `path` added to the scores where experts are chosen.
void correct_choice(const std::string& path, MoeSpec& moe);

/// Reads whether the chosen experts' scores are made to add up to 1, what the
/// scores are multiplied by, and the groups of experts.
void read_router_scale(
    const JsonView& config,
    MoeSpec& moe,
    const char* normalize = "norm_topk_prob",
    const char* scale = "routed_scaling_factor");

/// DeepSeek's experts by its keys (n_routed_experts and their like), where the
/// config has any. The router's scores are left to the family.
void add_deepseek_experts(const JsonView& config, DecoderSpec& spec);

/// Reads n_group and topk_group, which may be absent. Groups are compared by
/// the sum of their two highest scores.
void read_groups(const JsonView& config, MoeSpec& moe);

/// Makes the router that of DeepSeek-V3: sigmoid scores, a correction for the
/// choice, groups; a plain matrix that is never packed.
void read_corrected_router(
    const JsonView& config,
    const std::string& path,
    MoeSpec& moe);

}  // namespace pennyweight
