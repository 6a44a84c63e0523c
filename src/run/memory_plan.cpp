#include "run/memory_plan.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "core/text.h"
#include "model/embedding_and_head.h"
#include "model/stream/columns.h"
#include "run/block_task.h"

namespace pennyweight {

namespace {

// Program, libraries, tokenizer, kernels' scratch.
constexpr int64_t kOneProgram = 150'000'000;

int64_t machine_memory() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
}

// Sums of what the module's input needs, and while they are split the parts,
// of x, x_full - x and r_full - r.
int64_t
statistics_bytes(const ModuleSpec& module, int64_t hidden, bool shifts) {
  return 4 * module.in * (shifts ? 4 * module.in + 2 * hidden : module.in);
}

// The most that one block takes: its weights as read and as expanded, the
// variants' packed ones, statistics, a batch on its way through.
int64_t block_bytes(
    const Model& model,
    const BlockMethod& stage,
    const BlockSpec& block,
    const MemoryDemand& demand) {
  int64_t weights = 0;
  int64_t published = 0;  // bytes
  int64_t statistics = 0;
  int64_t widths = 0;
  int64_t experts = 0;
  const bool shifts = stage.needs().quantized_inputs;
  const int64_t split = shifts ? 2 : 1;  // sums, and what they are split into
  for (const ModuleSpec& module : list_modules(block)) {
    // Of the experts a token reads only some, which are counted below.
    widths += module.part > 0 || (module.expert && block.moe)
        ? 0
        : module.out + module.in;
    if (const auto& spec = module.published) {
      // As it is mapped, and as it is read.
      published += 2 * quantized_bytes(*spec, module.out, module.in, 1);
      continue;
    }
    weights += module.out * module.in;
    statistics = std::max(
        statistics, statistics_bytes(module, model.spec.hidden, shifts));
    experts += module.expert ? split * expert_bytes(module, shifts) : 0;
  }
  statistics += std::min(experts, split * kExpertSums);
  const int64_t item = static_cast<int64_t>(mx::size_of(model.dtype));
  const int64_t rows = std::max<int64_t>(demand.batch_tokens, 512);
  int64_t slots = 0;  // of experts that stay packed
  if (block.moe) {
    const int64_t hidden = block.moe->chosen * model.spec.hidden;
    const int64_t wide = block.moe->chosen * block.moe->experts.down.in;
    if (published > 0) {
      // No statistics are taken between their steps, so that a stream's arrays
      // go before the next one's come: what is read, gate, up and their
      // product.
      slots = rows * (hidden + 3 * wide) * item;
    } else {
      widths += 2 * hidden + 3 * wide;
    }
  }
  // Both streams' arrays of a batch at once, and what a kernel copies.
  const int64_t batch =
      2 * rows * (widths * item + 4 * model.spec.hidden * 4) + slots;
  return weights * item * 3 + 6 * weights + published + statistics + batch +
      stage.working_bytes(block);
}

// Embedding and head as they will be written, which a walk holds, and what
// fitting them takes beside: rows some at a time, in float32, with codes and
// grids; what a head reads of some thousand tokens, and its Hessian.
struct TableBytes {
  int64_t held = 0;
  int64_t fit = 0;
};
TableBytes table_bytes(const Model& model, const QuantPlan& plan) {
  constexpr int64_t kFitTokens = 8192;
  const int item = static_cast<int>(mx::size_of(model.dtype));
  TableBytes bytes;
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    if (module.block < 0) {
      const auto& spec = plan.at(module.path).spec;
      bytes.held +=
          spec ? quantized_bytes(*spec, module.out, module.in, item) : 0;
      // One after the other, the widest of them most.
      bytes.fit = std::max(
          bytes.fit,
          kTableRows * module.in * 16 + 4 * 4 * module.in * module.in +
              kFitTokens * module.in * 4);
    }
  }
  return bytes;
}

int64_t output_bytes(const Model& model, const QuantPlan& plan) {
  const int item = static_cast<int>(mx::size_of(model.dtype));
  int64_t bytes = 0;
  for (const ModuleSpec& module : list_modules(model.spec)) {
    const auto& entry = plan.at(module.stored);
    bytes += entry.spec
        ? quantized_bytes(*entry.spec, module.out, module.in, item)
        : module.out * module.in * item;
  }
  return bytes;
}

}  // namespace

int64_t MemoryDemand::freed_bytes() const {
  constexpr int64_t kMost = int64_t{256} << 20;
  return limit ? std::min(kMost, *limit / 8) : kMost;
}

MemoryPlan make_memory_plan(
    const Model& model,
    const QuantPlan& plan,
    const BlockMethod& stage,
    const MemoryDemand& demand) {
  const int64_t item = static_cast<int64_t>(mx::size_of(model.dtype));
  MemoryPlan result;
  int64_t block = 0;
  int64_t inner = 0;
  int64_t columns = 0;
  for (const BlockSpec& spec : model.spec.blocks) {
    block = std::max(block, block_bytes(model, stage, spec, demand));
    inner = std::max(
        inner,
        spec.attention.o.in + (spec.side_scan ? spec.side_scan->out.in : 0));
    inner = std::max(inner, spec.mlp ? spec.mlp->down.in : 0);
    columns =
        std::max<int64_t>({columns, read_columns(spec), given_columns(spec)});
  }
  const int64_t streams = stage.needs().quantized_inputs ? 2 : 1;
  // Each has a residual stream and what o or down read; the quantized one
  // keeps a block's inputs, too, and all do where blocks are restarted.
  const auto& token = model.spec.token_inputs;
  const int64_t brought = token ? token->projection.out : 0;
  const int64_t kept = stage.needs().restarts ? streams : streams - 1;
  result.activations = demand.tokens *
      ((streams + kept) * columns * 4 + streams * (inner + brought) * item);
  const auto tables = table_bytes(model, plan);
  result.fixed = kOneProgram + demand.freed_bytes() + tables.held +
      std::max(tables.fit, block);
  const int64_t limit = demand.limit.value_or(machine_memory() / 2);
  const int64_t room = limit - result.fixed;
  if (room < 0 && demand.limit) {
    throw argument_error(
        "plan",
        "--memory-limit " + human_bytes(double(limit)) +
            " is too little: about " + human_bytes(double(result.fixed)) +
            " are needed for the largest block, its statistics and the "
            "embedding; raise it, or lower --batch-size");
  }
  result.in_memory = std::clamp<int64_t>(room, 0, result.activations);
  result.scratch = result.activations - result.in_memory;
  result.output = output_bytes(model, plan);
  result.disk = result.scratch + 2 * result.output;
  return result;
}

void require_disk(
    int64_t bytes,
    const std::filesystem::path& folder,
    const std::string& what) {
  std::error_code failed;
  auto space = std::filesystem::space(folder, failed);
  if (failed || static_cast<int64_t>(space.available) >= bytes) {
    return;
  }
  throw Error(
      ErrorCode::io,
      "plan",
      folder.string() + " has " + human_bytes(double(space.available)) +
          " free and about " + human_bytes(double(bytes)) + " are needed (" +
          what + "); make room or choose another output");
}

std::string describe(const MemoryPlan& plan) {
  std::string text = "plan: memory up to " + human_bytes(double(plan.peak())) +
      ", of which activations " + human_bytes(double(plan.in_memory));
  if (plan.scratch > 0) {
    text += "; " + human_bytes(double(plan.scratch)) +
        " of activations in a scratch file";
  }
  return text + "; disk " + human_bytes(double(plan.disk)) + ", output " +
      human_bytes(double(plan.output));
}

}  // namespace pennyweight
