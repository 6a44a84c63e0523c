#include "method/awq/method.h"

#include <algorithm>

#include "method/awq/search.h"
#include "method/gate.h"
#include "method/pack_result.h"
#include "pass/fold.h"

namespace pennyweight {

namespace {

/// How a block is rounded.
struct Variant {
  std::string name;
  bool scaled;
  bool clipped;
  PackedBlock packed{};
  DenseBlock dense{};  // before scaling
  double loss = 0;
};

std::vector<Variant> list_variants(const AwqOptions& options, bool scaled) {
  std::vector<Variant> variants;
  const bool scales = options.scale && scaled;
  if (scales && options.clip) {
    variants.push_back({"scaled and clipped", true, true});
  }
  if (scales) {
    variants.push_back({"scaled", true, false});
  }
  if (options.clip) {
    variants.push_back({"clipped", false, true});
  }
  variants.push_back({kRtn, false, false});
  return variants;
}

void round_block(
    const BlockTask& task,
    const AwqBlock& block,
    const AwqOptions& options,
    Variant& variant) {
  AwqOptions parts = options;
  parts.clip = variant.clipped;
  for (size_t i = 0; i < block.inputs.size(); ++i) {
    const AwqInputs& inputs = block.inputs[i];
    const Scales columns = variant.scaled ? block.columns(i) : Scales{};
    for (const ModuleSpec& module : inputs.group.modules) {
      const Scales rows = variant.scaled ? block.rows(module.path) : Scales{};
      auto result = round_module(task, module, inputs, columns, rows, parts);
      variant.loss += result.figures.loss;
      auto packed = pack_result(result, task.quant_spec(module), task.dtype());
      variant.dense.insert_or_assign(
          module.path, unscaled(task, packed, columns, rows));
      variant.packed.insert_or_assign(module.path, std::move(packed));
    }
  }
}

/// Errors on held-out text where there is some, else the Gram matrices'
/// losses.
std::vector<Judged> judge(BlockTask& task, const std::vector<Variant>& all) {
  std::vector<Judged> ways;
  for (const Variant& variant : all) {
    ways.push_back(
        {variant.name,
         task.has_held_out() ? task.held_out_error(variant.dense)
                             : variant.loss});
  }
  return ways;
}

void fold_all(BlockTask& task, const AwqBlock& block) {
  for (const AwqScaling& scaling : block.scalings) {
    if (!scaling.scales.empty()) {
      task.fold(scaling.group, scaling.scales);
    }
  }
}

}  // namespace

// What loses least rounded to nearest may lose more under error feedback, so
// that both ways are gone.
void AwqMethod::run_then(
    BlockTask& task,
    const AwqBlock& block,
    bool scaled,
    BlockFigures& figures) {
  BlockFigures both;
  task.restart();
  auto chosen = then_->run(task);
  std::string kept = "unscaled";
  const auto unscaled = chosen.error();
  if (unscaled) {
    both.held_out_error = {
        {kept, *unscaled}, {kRtn, figures.held_out_error.at(kRtn)}};
  }
  if (scaled) {
    const PackedBlock before = task.packed();
    fold_all(task, block);
    task.restart();
    auto other = then_->run(task);
    const auto error = other.error();
    if (error) {
      both.held_out_error["scaled"] = *error;
    }
    if (!unscaled || !error || *error < *unscaled) {
      chosen = std::move(other);
      kept = "scaled";
    } else {
      task.unfold();
      set_all(task, before);
    }
  }
  both.kept = kept;
  both.details["awq"] = to_json(figures);
  both.details[then_->name()] = to_json(chosen);
  both.warnings = std::move(figures.warnings);
  both.warnings.insert(
      both.warnings.end(), chosen.warnings.begin(), chosen.warnings.end());
  figures = std::move(both);
}

MethodNeeds AwqMethod::needs() const {
  return {
      .quantized_inputs = !options_.full_inputs,
      .held_out = true,
      .restarts = true};
}

int64_t AwqMethod::working_bytes(const BlockSpec& block) const {
  // Gram matrices of all inputs, as arrays and vectors; variants' weights.
  std::map<std::string, int64_t> squares;
  int64_t weights = 0;
  for (const ModuleSpec& module : list_modules(block)) {
    if (module.published) {
      continue;
    }
    squares[module.input_id] = 4 * module.in * module.in;
    weights += module.in * module.out;
  }
  int64_t bytes = 16 * weights;
  for (const auto& [input, square] : squares) {
    bytes += 2 * square;
  }
  return std::max(bytes, then_ ? then_->working_bytes(block) : 0);
}

// That the search of scales and ranges takes as long as three times what rounds
// the block by GPTQ is a guess.
BlockOperations AwqMethod::operations(
    const BlockSpec& block,
    const TextSize& text) const {
  constexpr double kSearch = 3;
  const double ways = double(list_variants(options_, true).size());
  BlockOperations work{
      .forward = ways * text.held_out,
      .gptq = kSearch,
      .nearest = ways,
      .expanded = ways};
  if (then_) {
    const auto own = then_->operations(block, text);
    work.walks += 2 * own.walks;
    work.forward += 2 * own.forward;
    work.gradients += 2 * own.gradients;
    work.factored += 2 * own.factored;
    work.gptq = (kSearch + 2) * own.gptq;
    work.nearest += 2 * own.nearest;
    work.expanded += 2 * own.expanded;
    work.learned_steps += 2 * own.learned_steps;
  }
  return work;
}

BlockFigures AwqMethod::run(BlockTask& task) {
  BlockFigures figures;
  AwqBlock block = take_inputs(task);
  if (!block.unfoldable.empty()) {
    figures.details["unfoldable"] = block.unfoldable;
  }
  bool scaled = false;
  for (AwqScaling& scaling : block.scalings) {
    if (options_.scale) {
      const auto& path = scaling.group.linears.front();
      figures.details["scales"][path] =
          search_scales(task, options_, block, scaling);
      scaled = scaled || !scaling.scales.empty();
    }
  }
  auto variants = list_variants(options_, scaled);
  for (Variant& variant : variants) {
    round_block(task, block, options_, variant);
  }
  const auto ways = judge(task, variants);
  const size_t kept = least(ways);
  if (task.has_held_out()) {
    figures.held_out_error = by_name(ways);
  } else {
    figures.details["loss"] = by_name(ways);
  }
  figures.kept = variants[kept].name;
  if (then_) {
    run_then(task, block, variants[kept].scaled, figures);
    return figures;
  }
  if (kept != 0 && task.has_held_out()) {
    figures.warnings.push_back(describe_kept(task.spec(), ways, kept));
  }
  if (variants[kept].scaled) {
    fold_all(task, block);
  }
  set_all(task, variants[kept].packed);
  return figures;
}

}  // namespace pennyweight
