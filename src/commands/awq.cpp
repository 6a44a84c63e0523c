#include "commands/awq.h"

#include <optional>

#include "method/awq/stage.h"
#include "method/gptq/stage.h"

namespace pennyweight {

WalkReport awq(
    const fs::path& model_folder,
    const AwqRunOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress) {
  check_options(options.awq);
  auto outer =
      make_quant_spec("affine", options.embed_bits, options.embed_group_size);
  auto linears = make_quant_spec("affine", options.bits, options.group_size);
  MethodRun run("awq", model_folder, options.walk, ranks, progress);
  run.calibrate(
      plan_modules(run.model(), linears, outer, outer), true, fetch_dataset);
  std::optional<GptqStage> then;
  GptqOptions gptq;
  const bool unchecked = run.note_unchecked();
  if (options.then == "gptq") {
    gptq.shift = unchecked ? 0 : gptq.shift;
    then.emplace(gptq);
  }
  AwqStage stage(options.awq, then ? &*then : nullptr);
  return run.run(
      stage,
      options_to_json(options, true),
      std::string("AWQ") + (then ? ", then GPTQ," : "") + " at " +
          std::to_string(options.bits) + " bits");
}

}  // namespace pennyweight
