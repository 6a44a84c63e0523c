#include "commands/gptq.h"

#include "core/error.h"
#include "method/gptq/stage.h"
#include "method/learned/stage.h"

namespace pennyweight {

namespace {

constexpr const char* kName = "gptq";

QuantPlan plan_of(const Model& model, const GptqRunOptions& options) {
  auto fallback = make_quant_spec(
      "affine", options.fallback_bits, options.fallback_group_size);
  auto embedding = make_quant_spec(
      "affine",
      options.embed_bits.value_or(options.fallback_bits),
      options.fallback_group_size);
  auto linears =
      make_quant_spec(options.mode, options.bits, options.group_size);
  return plan_modules(model, linears, embedding, fallback);
}

}  // namespace

WalkReport gptq(
    const fs::path& model_folder,
    const GptqRunOptions& wanted,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress) {
  GptqRunOptions options = wanted;
  check_options(options.gptq);
  check_options(options.learned);
  // The paper's and mlx-lm's GPTQ stops at the blocks.
  options.walk.fit_embed = options.walk.fit_embed && !options.gptq.plain;
  MethodRun run(kName, model_folder, options.walk, ranks, progress);
  run.calibrate(
      plan_of(run.model(), options), !options.gptq.plain, fetch_dataset);
  if (!options.gptq.plain && run.note_unchecked()) {
    options.gptq.shift = 0;
  }
  GptqStage gptq(options.gptq);
  LearnedStage learned(gptq, options.learned);
  Stage& stage =
      options.learned.steps > 0 ? static_cast<Stage&>(learned) : gptq;
  const int bits =
      make_quant_spec(options.mode, options.bits, options.group_size).bits;
  return run.run(
      stage,
      options_to_json(options, true),
      std::string(options.gptq.plain ? "Plain GPTQ" : "GPTQ") + " at " +
          std::to_string(bits) + " bits" +
          (options.learned.steps > 0 ? ", then learned rounding," : ""));
}

}  // namespace pennyweight
