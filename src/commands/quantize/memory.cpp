#include "commands/quantize/memory.h"

#include <set>
#include <string>

#include "core/bytes.h"
#include "method/widths/rounding_costs.h"
#include "run/memory_plan.h"

namespace pennyweight {

namespace {

// Program, libraries, tokenizer, kernels' scratch, and freed results that are
// kept for the next ones.
constexpr int64_t kProgram = 150'000'000 + (int64_t{256} << 20);
// Of a tile of the head: weights of both sides, gradients, the gradient.
constexpr int64_t kHeadTiles = int64_t{64} << 20;

int64_t embedding_and_head(const Model& model) {
  int64_t weights = 0;
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    weights += module.block < 0 ? module.out * module.in : 0;
  }
  return weights;
}

/// Of measuring costs: kept activations; a block's weights, what its linears
/// read and made of a batch with the gradients, and two Gram matrices of each,
/// of which one is factored at a time; embedding and head in five bits, when
/// they are measured.
int64_t
cost_bytes(const Model& model, const StageSizes& sizes, int sequence_length) {
  const CostSettings settings;
  const int64_t tokens = int64_t{sizes.cost_sequences} * sequence_length;
  const int64_t batch = std::min(tokens, settings.batch_tokens);
  const auto item = static_cast<int64_t>(mx::size_of(model.dtype));
  const auto blocks = static_cast<int64_t>(model.spec.blocks.size());
  const int64_t activations = (blocks + 1) * tokens * model.spec.hidden * 4;
  int64_t most = 0;
  for (const BlockSpec& block : model.spec.blocks) {
    int64_t weights = 0, packed = 0, traced = 0, squares = 0, largest = 0;
    std::set<std::string> inputs;
    for (const ModuleSpec& module : list_stored_modules(block)) {
      const int64_t stack = std::max<int64_t>(1, module.count);
      if (const auto& spec = module.published) {
        // As it is mapped, and as it is read.
        packed += 2 * stack * quantized_bytes(*spec, module.out, module.in, 1);
        continue;
      }
      weights += module.in * module.out * stack;
      traced += module.in + module.out;
      const int64_t square = 4 * module.in * module.in;
      squares += square * (inputs.insert(module.input_id).second ? 2 : 1);
      largest = std::max(largest, 3 * square + 12 * module.in * module.out);
    }
    most = std::max(
        most,
        weights * item + packed + 2 * batch * traced * item + squares +
            largest);
  }
  return kProgram + std::min(activations, settings.activation_bytes) +
      std::max(most, kHeadTiles + embedding_and_head(model) * 5 / 8);
}

}  // namespace

QuantizeMemory plan_memory(
    const Model& model,
    const WidthPlan& widths,
    const StageSizes& sizes,
    int sequence_length,
    const std::optional<std::string>& limit) {
  QuantizeMemory memory;
  const auto& stages = default_chain();
  const auto last = std::find_if(
      stages.rbegin(), stages.rend(), [&](const ChainStage& stage) {
        return stage.kind == ChainStage::Kind::blocks && has_work(stage, sizes);
      });
  const auto rounding = make_stage(*last, sizes);
  MemoryDemand demand{
      int64_t{sizes.gptq_sequences + sizes.block_gate} * sequence_length,
      2048,
      std::nullopt};
  if (limit) {
    demand.limit = parse_bytes(*limit, "--memory-limit");
  }
  memory.rounding =
      make_memory_plan(model, widths.plan, *rounding.method, demand).peak();
  memory.costs = cost_bytes(model, sizes, sequence_length);
  if (sizes.dwq_sequences > 0) {
    int64_t groups = 0;
    for (const auto& own : widths.modules) {
      const auto& module = own.module;
      if (own.spec && !own.module.published && own.spec->bits < 8) {
        groups += module.out * module.in * std::max<int64_t>(1, module.count) /
            own.spec->group_size;
      }
    }
    // Masters, moments, gradients and the best so far of scale and bias; of
    // codes a block's at a time, and activations of both models.
    memory.dwq = kProgram + kHeadTiles + (int64_t{128} << 20) +
        groups * 2 * (4 * 4 + 2) + widths.bytes;
  }
  return memory;
}

}  // namespace pennyweight
