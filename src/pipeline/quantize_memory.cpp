#include "pipeline/quantize_memory.h"

#include "core/bytes.h"
#include "pipeline/memory_plan.h"
#include "pipeline/rounding_chain.h"
#include "pipeline/rounding_costs.h"

namespace pennyweight {

namespace {

/// Of measuring costs: a batch's logits and their gradient, the head in float32
/// as its products take it, embedding and head as they are and rounded, and
/// activations.
int64_t
cost_bytes(const Model& model, const StageSizes& sizes, int sequence_length) {
  constexpr int64_t kProgram = int64_t{150} << 20;
  const CostSettings settings;
  const int64_t tokens = int64_t{sizes.cost_sequences} * sequence_length;
  const int64_t logits =
      std::min(tokens, settings.batch_tokens) * model.spec.vocab * 4;
  const auto item = static_cast<int64_t>(mx::size_of(model.dtype));
  const int64_t outer = model.spec.vocab * model.spec.hidden;
  const auto blocks = static_cast<int64_t>(model.spec.blocks.size());
  const int64_t activations = (blocks + 1) * tokens * model.spec.hidden * item;
  return kProgram + 2 * logits + outer * (4 + 2 * item) +
      std::min(activations, settings.activation_bytes);
}

}  // namespace

QuantizeMemory plan_memory(
    const Model& model,
    const WidthPlan& widths,
    const StageSizes& sizes,
    int sequence_length,
    const std::optional<std::string>& limit) {
  QuantizeMemory memory;
  RoundingChain chain(sizes);
  MemoryDemand demand{
      int64_t{sizes.gptq_sequences + sizes.block_gate} * sequence_length,
      2048,
      std::nullopt};
  if (limit) {
    demand.limit = parse_bytes(*limit, "--memory-limit");
  }
  memory.rounding =
      make_memory_plan(model, widths.plan, chain.stage(), demand).peak();
  memory.costs = cost_bytes(model, sizes, sequence_length);
  if (sizes.dwq_sequences > 0) {
    constexpr int64_t kBeside = int64_t{600} << 20;  // of a step and program
    int64_t groups = 0;
    int64_t head = 0;
    for (const auto& own : widths.modules) {
      const auto& module = own.module;
      if (own.spec && own.spec->bits < 8) {
        groups += module.out * module.in * std::max<int64_t>(1, module.count) /
            own.spec->group_size;
      }
      head = std::max(head, module.block < 0 ? module.out * module.in : 0);
    }
    // Masters, moments, gradients and the best so far of scale and bias; the
    // head dense and its gradient.
    memory.dwq = widths.bytes + groups * 2 * (4 * 4 + 2) + head * 8 + kBeside;
  }
  return memory;
}

}  // namespace pennyweight
