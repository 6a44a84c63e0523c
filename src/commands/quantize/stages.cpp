#include "commands/quantize/stages.h"

#include <algorithm>

#include "commands/dwq.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "eval/evaluate.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "method/learned/rounding.h"
#include "method/plan_modules.h"
#include "run/method_run.h"

namespace pennyweight {

Model open_full_model(
    const Session& session,
    const fs::path& folder,
    const PlanOptions& options,
    std::shared_ptr<ShardProvider> provider) {
  auto model =
      open_source(folder, options.assume_family, {}, std::move(provider));
  if (model.is_rounded()) {
    session.refuse(
        folder.string() +
        " is quantized already; start from the full-precision model");
  }
  return model;
}

namespace {

// Where the one width does not fit, floats are what there is.
std::vector<Candidate> uniform_widths(
    const Model& model,
    const QuantSpec& width,
    const PinnedWidths& pins) {
  auto plan = plan_modules(model, width, width, width);
  std::vector<Candidate> widths;
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    auto& entry = plan.modules.at(module.path);
    if (entry.spec && !entry.published) {
      entry.spec = width;  // routers, too
    }
  }
  pins.apply(plan);
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    widths.push_back(plan.at(module.path).spec);
  }
  return widths;
}

}  // namespace

WidthWishes
width_wishes(Session& session, const Model& model, const PlanOptions& options) {
  WidthWishes wishes;
  wishes.pins = PinnedWidths(
      model, options.pins, {.where = session.command(), .affine = true});
  wishes.prefer_active = strength_of(options.active, session.command());
  session.note(wishes.pins.notes());
  return wishes;
}

bool has_choice(const TargetOptions& target) {
  return target.target_bpw || target.target_size;
}

std::vector<Candidate> list_candidates(
    const Model& model,
    const PlanOptions& options,
    const TargetOptions& target,
    const PinnedWidths& pins) {
  if (has_choice(target)) {
    return with_pinned(parse_candidates(options.candidates), pins);
  }
  const auto width = make_quant_spec("affine", target.bits, 64);
  std::vector<Candidate> candidates{width};
  for (const auto& own : uniform_widths(model, width, pins)) {
    const bool offered = !own || own->mode == width.mode;  // else published
    if (offered && std::ranges::count(candidates, own) == 0) {
      candidates.push_back(own);
    }
  }
  return candidates;
}

WidthPlan choose_size(
    const WidthChooser& widths,
    const SizeTarget& size,
    const Session& session) {
  if (const auto text = widths.about_largest(size); !text.empty()) {
    session.refuse(text);
  }
  return widths.choose(size);
}

WidthPlan choose_widths(
    const WidthChooser& widths,
    const Model& model,
    const std::vector<Candidate>& candidates,
    const TargetOptions& target,
    const PinnedWidths& pins,
    const Session& session) {
  if (int(target.target_bpw.has_value()) + int(target.target_size.has_value()) +
          int(target.bits.has_value()) >
      1) {
    session.refuse(
        "--target-bpw, --target-size and --bits each say how large the result "
        "is to be; give one");
  }
  if (!has_choice(target)) {
    return widths.plan_for(uniform_widths(model, *candidates.front(), pins));
  }
  return choose_size(
      widths,
      size_target(target.target_bpw, target.target_size, session.command()),
      session);
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
      throw corrupt_error(
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
    return own.module.block >= 0 && own.spec && !own.module.published &&
        own.spec->bits <= most;
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
  settings.mtp = false;
  AtomicFolder folder(output, true);
  const auto written = write_model(
      context.model,
      Conversion(context.model, settings),
      folder.path(),
      context.options.model,
      "Rounded to nearest.",
      stage::kRtn,
      context.progress);
  folder.commit();
  return {{"bytes", written.bytes}};
}

Json run_rounding(
    const StageContext& context,
    const StageSizes& sizes,
    const ChainStage& stage,
    const fs::path& output) {
  WalkOptions walk;
  walk.model = context.options.model;
  walk.mlx_path = output.string();
  walk.assume_family = context.options.assume_family;
  walk.memory_limit = context.options.memory_limit;
  walk.data.sequence_length = context.mix.sequence_length;
  walk.part = true;
  const ProcessGroup alone;
  Session session(stage.name, context.progress, alone);
  MethodRun run(session, context.model, context.model_folder, walk);
  session.describe_input(context.model);
  run.calibrate(
      context.widths.plan,
      {first_of(context.mix.fit, sizes.gptq_sequences),
       first_of(context.mix.gate, sizes.block_gate)},
      context.mix.source);
  auto [method, options] = make_stage(stage, sizes);
  options["plan"] = to_json(context.widths.plan);
  run.run(
      *method,
      options,
      stage.name == stage::kLearned ? "Learned rounding" : stage.title);
  return to_json(session.finish());
}

Json run_dwq(
    const StageContext& context,
    const StageSizes& sizes,
    const fs::path& student,
    const fs::path& output) {
  DwqRunOptions options;
  options.model = context.options.model;
  options.mlx_path = output.string();
  options.assume_family = context.options.assume_family;
  options.part = true;
  auto& own = options.dwq;
  own.quantized_model = student.string();
  own.num_samples = sizes.dwq_sequences;
  own.max_seq_length = context.mix.sequence_length;
  own.seed = context.options.mix.seed;
  own.learning_rate = sizes.dwq_rate;
  DwqData data;
  data.source = context.mix.source;
  data.train.sequences = first_of(context.mix.fit, sizes.dwq_sequences);
  data.valid.sequences = context.mix.gate;
  const auto batch = [&](DistillSplit& split, uint32_t seed) {
    return make_dwq_batches(
        split,
        context.model.spec.vocab,
        static_cast<size_t>(own.batch_size),
        static_cast<size_t>(own.max_seq_length),
        seed);
  };
  batch(data.valid, 0);
  std::vector<DistillBatch> all;
  for (int epoch = 0; epoch < sizes.dwq_epochs; ++epoch) {
    batch(
        data.train,
        static_cast<uint32_t>(own.seed) + static_cast<uint32_t>(epoch));
    all.insert(all.end(), data.train.batches.begin(), data.train.batches.end());
  }
  data.train.batches = std::move(all);
  const ProcessGroup alone;
  Session session(stage::kDwq, context.progress, alone);
  dwq(session,
      context.model,
      context.model_folder,
      student,
      options,
      std::move(data));
  return to_json(session.finish());
}

}  // namespace pennyweight
