#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "method/block_method.h"
#include "method/gptq/gptq.h"

namespace pennyweight {

/// One way to make the block.
struct GptqVariant {
  std::string name;
  GptqOptions options;
  bool nearest = false;  // round to nearest instead
  bool early = false;    // the first variant's, before refit and descent
  PackedBlock weights{};
  Json figures = Json::object();
};

/// Rounds the groups of `task` in each variant, from the same statistics, and
/// sets what the first one comes to. Experts of one step are rounded side by
/// side, each on one thread, where they are many and narrow: the results are
/// the same for any number of threads. Figures and warnings go to `figures`.
void round_groups(
    BlockTask& task,
    const GptqOptions& options,
    std::vector<GptqVariant>& variants,
    BlockFigures& figures);

/// Most bytes that experts of the block which are rounded side by side hold
/// beside the statistics; 0 where none are. `results`: of how many variants
/// codes are kept.
int64_t side_by_side_bytes(
    const BlockSpec& block,
    const GptqOptions& options,
    int64_t results);

}  // namespace pennyweight
