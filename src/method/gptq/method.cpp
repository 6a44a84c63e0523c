#include "method/gptq/method.h"

#include <algorithm>

#include "core/error.h"
#include "method/gate.h"
#include "method/gptq/block.h"

namespace pennyweight {

namespace {

/// Everything, round to nearest, and without each part that is on.
std::vector<GptqVariant>
list_variants(const GptqOptions& options, bool held_out, int block) {
  std::vector<GptqVariant> variants{{options.plain ? "plain" : "all", options}};
  if (options.plain || !held_out) {
    return variants;
  }
  variants.push_back({kRtn, options, true});
  if (block % options.gate_every != 0) {
    return variants;
  }
  if (options.shift > 0) {
    variants.push_back({"without shift", options});
    variants.back().options.shift = 0;
  }
  if ((options.refit || options.descend) && options.rounds > 0) {
    variants.push_back({"without refit and descent", options});
    variants.back().early = true;
  }
  if (options.grid_search) {
    variants.push_back({"without grid search", options});
    variants.back().options.grid_search = false;
  }
  return variants;
}

/// Each variant's error on held-out text; the first is what was set.
std::vector<Judged> judge(
    BlockTask& task,
    const std::vector<GptqVariant>& all) {
  std::vector<Judged> ways{{all.front().name, task.held_out_error()}};
  for (size_t i = 1; i < all.size(); ++i) {
    const GptqVariant& variant = all[i];
    ways.push_back(
        {variant.name, task.held_out_error(expand_all(task, variant.weights))});
  }
  return ways;
}

}  // namespace

MethodNeeds GptqMethod::needs() const {
  return {.quantized_inputs = !options_.plain, .held_out = !options_.plain};
}

int64_t GptqMethod::working_bytes(const BlockSpec& block) const {
  const auto results =
      int64_t(list_variants(options_, true, block.index).size());
  int64_t most = side_by_side_bytes(block, options_, results);
  for (const ModuleSpec& module : list_modules(block)) {
    if (module.published) {
      continue;
    }
    // H beside its factor; with shifts the sums, let go one by one, were more.
    const int64_t squares = options_.plain ? 4 * module.in * module.in : 0;
    // Rows that are shifted, a thousand at a time, and what the shift does.
    const int64_t shifted = options_.plain ? 0 : 3 * 4 * 1024 * module.in;
    // Weight in float32 and in its own type, codes of two results, packed.
    const int64_t weights = 9 * module.in * module.out;
    most = std::max(most, squares + shifted + weights);
  }
  return most;
}

BlockOperations GptqMethod::operations(
    const BlockSpec& block,
    const TextSize& text) const {
  const auto variants = list_variants(options_, text.held_out > 0, block.index);
  const double others = double(variants.size() - 1);
  BlockOperations work{
      .forward = others * text.held_out,
      .factored = 1,
      .nearest = 0,
      .expanded = 1 + others};
  for (const auto& variant : variants) {
    work.gptq += variant.nearest || variant.early ? 0 : 1;
    work.nearest += variant.nearest ? 1 : 0;
  }
  return work;
}

BlockFigures GptqMethod::run(BlockTask& task) {
  auto variants =
      list_variants(options_, task.has_held_out(), task.spec().index);
  BlockFigures figures;
  round_groups(task, options_, variants, figures);
  size_t kept = 0;
  std::vector<Judged> ways;
  if (variants.size() > 1) {
    ways = judge(task, variants);
    kept = least(ways);
    figures.held_out_error = by_name(ways);
  }
  figures.kept = variants[kept].name;
  figures.details["modules"] = variants[kept].figures;
  if (kept != 0) {
    figures.warnings.push_back(describe_kept(task.spec(), ways, kept));
    set_all(task, variants[kept].weights);
  }
  return figures;
}

}  // namespace pennyweight
