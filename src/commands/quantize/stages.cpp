#include "commands/quantize/stages.h"

#include <algorithm>

#include "commands/dwq.h"
#include "commands/quantize/rounding_chain.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "eval/evaluate.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "run/method_run.h"

namespace pennyweight {

Model open_full_model(
    const fs::path& folder,
    const PlanOptions& options,
    const std::string& where) {
  auto model = open_source(folder, options.assume_family);
  if (!model.quantized.empty()) {
    throw Error(
        ErrorCode::invalid_argument,
        where,
        folder.string() +
            " is quantized already; start from the full-precision model");
  }
  return model;
}

std::vector<Candidate> list_candidates(
    const PlanOptions& options,
    const TargetOptions& target) {
  if (!target.target_bpw && !target.target_size) {
    return {make_quant_spec("affine", target.bits, 64)};
  }
  return parse_candidates(options.candidates);
}

WidthPlan choose_widths(
    const WidthChooser& widths,
    const Model& model,
    const std::vector<Candidate>& candidates,
    const TargetOptions& target,
    const std::string& where) {
  if (int(target.target_bpw.has_value()) + int(target.target_size.has_value()) +
          int(target.bits.has_value()) >
      1) {
    throw Error(
        ErrorCode::invalid_argument,
        where,
        "--target-bpw, --target-size and --bits each say how large the result "
        "is to be; give one");
  }
  if (target.target_bpw || target.target_size) {
    return widths.choose(
        size_target(target.target_bpw, target.target_size, where));
  }
  // Where the one width does not fit, floats are what there is.
  std::vector<Candidate> specs;
  for (const ModuleSpec& module : list_homes(model.spec)) {
    const bool fitting =
        module.packable && fits(*candidates.front(), module.in);
    specs.push_back(fitting ? candidates.front() : std::nullopt);
  }
  return widths.plan_for(specs);
}

void copy_folder(const fs::path& from, const fs::path& to) {
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const auto target = to / entry.path().lexically_relative(from);
    const auto kind = entry.symlink_status().type();
    if (kind == fs::file_type::directory) {
      fs::create_directories(target);
    } else if (kind == fs::file_type::regular) {
      copy_whole_file(entry.path(), target);
    } else {
      throw Error(
          ErrorCode::corrupt,
          "work",
          entry.path().string() +
              " is neither a file nor a folder, and no stage made it; run "
              "again with --force");
    }
  }
}

bool learns(const WidthPlan& widths) {
  const int most = LearnedOptions{}.max_bits;
  return std::ranges::any_of(widths.modules, [&](const ChosenWidth& own) {
    return own.module.block >= 0 && own.spec && own.spec->bits <= most;
  });
}

Evaluation divergence(
    const StageContext& context,
    const fs::path& folder,
    const TokenSequences& text,
    ReferenceStates* states) {
  std::vector<ScoredSequence> scored;
  for (const auto& sequence : text) {
    scored.push_back({sequence});
  }
  const auto quantized = open_model(folder, context.options.assume_family);
  return evaluate(
      quantized, &context.model, scored, {}, context.progress, states);
}

Json run_nearest(const StageContext& context, const fs::path& output) {
  ConversionSettings settings;
  settings.dtype = output_dtype(context.model);
  settings.plan = context.widths.plan;
  AtomicFolder folder(output, true);
  const auto written = write_model(
      context.model,
      Conversion(context.model, settings),
      folder.path(),
      context.options.model,
      "Rounded to nearest.",
      "nearest",
      context.progress);
  folder.commit();
  return {{"bytes", written.bytes}};
}

Json run_rounding(
    const StageContext& context,
    const StageSizes& sizes,
    const std::string& name,
    const fs::path& output) {
  WalkOptions walk;
  walk.model = context.options.model;
  walk.mlx_path = output.string();
  walk.assume_family = context.options.assume_family;
  walk.memory_limit = context.options.memory_limit;
  walk.data.sequence_length = context.mix.sequence_length;
  walk.part = true;
  const Ranks alone;
  MethodRun run(name, context.model_folder, walk, alone, context.progress);
  run.calibrate(
      context.widths.plan,
      {first_of(context.mix.fit, sizes.gptq_sequences),
       first_of(context.mix.gate, sizes.block_gate)},
      context.mix.source);
  RoundingChain chain(sizes);
  Json options = chain.options();
  options["plan"] = to_json(context.widths.plan);
  return to_json(run.run(
      chain.stage(),
      options,
      sizes.learn_steps > 0 ? "Learned rounding" : "GPTQ"));
}

Json run_dwq(
    const StageContext& context,
    const StageSizes& sizes,
    const fs::path& student,
    const fs::path& output) {
  DwqOptions options;
  options.model = context.options.model;
  options.quantized_model = student.string();
  options.mlx_path = output.string();
  options.assume_family = context.options.assume_family;
  options.num_samples = sizes.dwq_sequences;
  options.max_seq_length = context.mix.sequence_length;
  options.seed = context.options.mix.seed;
  options.learning_rate = sizes.dwq_rate;
  options.part = true;
  DwqData data;
  data.source = context.mix.source;
  data.train.sequences = first_of(context.mix.fit, sizes.dwq_sequences);
  data.valid.sequences = context.mix.gate;
  const auto batch = [&](DistillSplit& split, uint32_t seed) {
    return make_dwq_batches(
        split,
        context.model.spec.vocab,
        static_cast<size_t>(options.batch_size),
        static_cast<size_t>(options.max_seq_length),
        seed);
  };
  batch(data.valid, 0);
  std::vector<DistillBatch> all;
  for (int epoch = 0; epoch < sizes.dwq_epochs; ++epoch) {
    batch(
        data.train,
        static_cast<uint32_t>(options.seed) + static_cast<uint32_t>(epoch));
    all.insert(all.end(), data.train.batches.begin(), data.train.batches.end());
  }
  data.train.batches = std::move(all);
  const Ranks alone;
  return to_json(dwq_on(
      context.model_folder,
      student,
      options,
      std::move(data),
      alone,
      context.progress));
}

}  // namespace pennyweight
