#include "pipeline/gptq.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "calibration/sample.h"
#include "core/atomic_file.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/process.h"
#include "method/gptq_stage.h"
#include "pipeline/block_walk.h"
#include "pipeline/check_output.h"
#include "pipeline/fingerprint.h"
#include "pipeline/write_model.h"
#include "text/tokenizer.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "gptq";

void check_options(const Model& model, const GptqRunOptions& options) {
  auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, kWhere, what);
  };
  if (!model.quantized.empty()) {
    refuse(
        model.checkpoint.folder().string() +
        " is quantized already; start from the full-precision model");
  }
  if (options.batch_size < 0) {
    refuse("--batch-size is negative");
  }
  if (options.gptq.damp <= 0 || options.gptq.damp > 10) {
    refuse("--damp must be above 0 and at most 10");
  }
  if (options.gptq.shift < 0 || options.gptq.shift > 1) {
    refuse("--shift must be between 0 and 1");
  }
  if (options.gptq.rounds < 0) {
    refuse("--rounds is negative");
  }
  if (options.gptq.gate_every < 1) {
    refuse("--gate-every must be 1 or more");
  }
}

QuantPlan plan_modules(const Model& model, const GptqRunOptions& options) {
  QuantPlan plan{
      make_quant_spec(options.mode, options.bits, options.group_size), {}};
  auto fallback = make_quant_spec(
      "affine", options.fallback_bits, options.fallback_group_size);
  auto embedding = fallback;
  if (options.embed_bits) {
    embedding = make_quant_spec(
        "affine", *options.embed_bits, options.fallback_group_size);
  }
  for (const ModuleSpec& module : list_modules(model.spec)) {
    const auto& spec = module.kind == ModuleSpec::Kind::linear ? plan.common
        : module.kind == ModuleSpec::Kind::embedding           ? embedding
                                                               : fallback;
    auto& entry = plan.modules[module.path];
    if (fits(spec, module.in)) {
      entry.spec = spec;
    } else {
      entry.reason = "rows of " + std::to_string(module.in) +
          " weights don't divide into groups of " +
          std::to_string(spec.group_size);
    }
  }
  return plan;
}

TokenData load_tokens(
    const Model& model,
    const fs::path& folder,
    const GptqRunOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  auto tokenizer = Tokenizer::load(folder);
  return load_data(
      tokenizer,
      options.data,
      self_sampler(model, tokenizer, progress),
      fetch_dataset,
      progress);
}

int64_t count_tokens(const std::vector<std::vector<int32_t>>& sequences) {
  int64_t count = 0;
  for (const auto& sequence : sequences) {
    count += static_cast<int64_t>(sequence.size());
  }
  return count;
}

// What two runs must share for the one to go on with the other's work.
Json settings_of(
    const GptqRunOptions& options,
    const Model& model,
    const TokenData& data,
    const Ranks& ranks) {
  Json settings;
  settings["method"] = kWhere;
  settings["version"] = PENNYWEIGHT_VERSION;
  settings["options"] = options_to_json(options, true);
  settings["model"] = fingerprint(model);
  settings["data"] = fingerprint(data.sequences);
  settings["processes"] = ranks.size();
  return settings;
}

std::string summary_of(const GptqRunOptions& options, const TokenData& data) {
  return std::string(options.gptq.plain ? "Plain GPTQ" : "GPTQ") + " at " +
      std::to_string(
             make_quant_spec(options.mode, options.bits, options.group_size)
                 .bits) +
      " bits (%bpw a weight with scales), calibrated on " +
      std::to_string(data.tokens) + " tokens of " + data.source + ".";
}

// Reads finished blocks while the output is put together, one at a time.
class FinishedBlocks {
 public:
  FinishedBlocks(
      const WorkFolder& work,
      const Model& model,
      const QuantPlan& plan)
      : work_(work), model_(model), plan_(plan) {
    for (const BlockSpec& block : model.spec.blocks) {
      for (const ModuleSpec& module : list_modules(block)) {
        block_of_[module.path] = block.index;
      }
    }
  }

  ops::QuantizedWeight operator()(const std::string& module) {
    auto it = block_of_.find(module);
    if (it == block_of_.end()) {
      auto dense = load_linear(model_, module, model_.dtype).dense;
      require_finite(*dense, module + ".weight");
      return quantize(*dense, *plan_.at(module).spec);
    }
    if (it->second != current_) {
      current_ = it->second;
      block_ = packed_block(
          work_.load_block(current_),
          model_.spec.blocks[static_cast<size_t>(current_)],
          plan_);
    }
    return block_.at(module);
  }

 private:
  const WorkFolder& work_;
  const Model& model_;
  const QuantPlan& plan_;
  std::map<std::string, int> block_of_;
  int current_ = -1;
  PackedBlock block_;
};

void write_output(
    const Model& model,
    const QuantPlan& plan,
    const WorkFolder& work,
    const GptqRunOptions& options,
    const TokenData& data,
    const ProgressFn& progress,
    GptqReport& report) {
  FinishedBlocks blocks(work, model, plan);
  ConversionSettings settings;
  settings.dtype = model.dtype;
  settings.plan = plan;
  settings.source = [&](const std::string& module) { return blocks(module); };
  Conversion conversion(model, settings);
  AtomicFolder output(options.mlx_path, options.force);
  auto written = write_model(
      model,
      conversion,
      output.path(),
      options.model,
      summary_of(options, data),
      kWhere,
      progress);
  report.bytes_out = written.bytes;
  report.bits_per_weight = written.bits_per_weight;
  output.commit();
}

// What the user should know before any work is done.
void keep_notes(
    const Model& model,
    const QuantPlan& plan,
    const ProgressFn& progress,
    GptqReport& result) {
  result.notes = model.spec.notes;
  for (const auto& note : model.spec.notes) {
    warn(progress, kWhere, note);
  }
  for (const auto& [path, entry] : plan.modules) {
    if (!entry.spec) {
      result.kept.push_back(path + ": " + entry.reason);
      warn(progress, kWhere, path + " is not quantized: " + entry.reason);
    }
  }
}

// The shift fits the calibration text's noise where there is little of it, and
// without held-out text nothing would show that.
void drop_unchecked_shift(
    const CalibrationSplit& split,
    GptqRunOptions& options,
    const ProgressFn& progress,
    GptqReport& result) {
  if (!split.held_out.empty() || options.gptq.plain) {
    return;
  }
  std::string note = std::to_string(split.fit.size()) +
      " sequences are too few to hold any out: nothing is checked on text "
      "that it was not fitted to";
  if (options.gptq.shift > 0) {
    options.gptq.shift = 0;
    note += ", and --shift is taken as 0";
  }
  result.notes.push_back(note);
  warn(progress, kWhere, note);
}

// The first rank makes it ready, then the others read.
std::unique_ptr<WorkFolder> open_work(
    const GptqRunOptions& options,
    const Json& settings,
    const Ranks& ranks) {
  const ResumePolicy policy{options.resume, options.force};
  std::unique_ptr<WorkFolder> work;
  for (bool turn : {true, false}) {
    if (turn == ranks.first()) {
      work = std::make_unique<WorkFolder>(
          options.mlx_path, settings, policy, ranks.first());
    }
    ranks.barrier();
  }
  return work;
}

// Says what the run will take, and refuses what can't be.
WalkSettings plan_walk(
    const Model& model,
    const QuantPlan& plan,
    const Stage& stage,
    const GptqRunOptions& options,
    const WorkFolder& work,
    const Ranks& ranks,
    const ProgressFn& progress,
    GptqReport& result) {
  WalkSettings walk;
  walk.scratch_folder = work.path();
  if (options.batch_size > 0) {
    walk.batch_tokens =
        int64_t{options.batch_size} * options.data.sequence_length;
  }
  MemoryDemand demand{
      (result.tokens + result.held_out_tokens) / ranks.size() +
          options.data.sequence_length,
      walk.batch_tokens,
      std::nullopt};
  if (options.memory_limit) {
    demand.limit = parse_bytes(*options.memory_limit, "--memory-limit");
  }
  ops::keep_freed_memory(static_cast<size_t>(demand.freed_bytes()));
  result.plan = make_memory_plan(model, plan, stage, demand);
  walk.activation_bytes = result.plan.in_memory;
  report(progress, {kWhere, 0, 0, "", describe(result.plan)});
  require_disk(result.plan, work.path().parent_path().string());
  if (work.resumed()) {
    auto text = "going on after " + std::to_string(work.finished()) + " of " +
        std::to_string(model.spec.blocks.size()) + " blocks";
    report(progress, {kWhere, 0, 0, "", text});
  }
  return walk;
}

}  // namespace

GptqReport gptq(
    const fs::path& model_folder,
    const GptqRunOptions& wanted,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress) {
  auto start = std::chrono::steady_clock::now();
  GptqRunOptions options = wanted;
  Model model = open_model(model_folder);
  check_options(model, options);
  check_output(kWhere, model_folder, options.mlx_path);
  if (ranks.first()) {
    AtomicFolder(options.mlx_path, options.force);  // found out now, not late
  }
  check_tokenizer(model_folder, kWhere, progress);
  auto plan = plan_modules(model, options);
  GptqReport result;
  keep_notes(model, plan, progress, result);

  auto data =
      load_tokens(model, model_folder, options, fetch_dataset, progress);
  auto split = split_held_out(data.sequences, !options.gptq.plain);
  drop_unchecked_shift(split, options, progress, result);
  result.data = data.source;
  result.tokens = count_tokens(split.fit);
  result.held_out_tokens = count_tokens(split.held_out);
  result.notes.insert(
      result.notes.end(), data.warnings.begin(), data.warnings.end());
  result.settings = settings_of(options, model, data, ranks);

  auto work = open_work(options, result.settings, ranks);
  result.resumed_blocks = work->finished();
  GptqStage stage(options.gptq);
  auto walk =
      plan_walk(model, plan, stage, options, *work, ranks, progress, result);
  BlockWalk(model, plan, stage, split, walk, ranks).run(*work, progress);
  ranks.barrier();

  result.output = options.mlx_path;
  result.ranks = ranks.size();
  auto size = model_size(model);
  result.parameters = size.parameters;
  result.bytes_in = size.bytes;
  if (ranks.first()) {
    for (int i = 0; i < work->finished(); ++i) {
      result.blocks.push_back(work->load_report(i));
    }
    write_output(model, plan, *work, options, data, progress, result);
    work->remove();
  }
  result.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  result.peak_rss = peak_rss();
  return result;
}

Json to_json(const GptqReport& report) {
  return {
      {"output", report.output},
      {"settings", report.settings},
      {"data", report.data},
      {"tokens", report.tokens},
      {"held_out_tokens", report.held_out_tokens},
      {"plan",
       {{"peak", report.plan.peak()},
        {"activations_in_memory", report.plan.in_memory},
        {"scratch", report.plan.scratch},
        {"disk", report.plan.disk}}},
      {"blocks", report.blocks},
      {"resumed_blocks", report.resumed_blocks},
      {"kept", report.kept},
      {"parameters", report.parameters},
      {"bytes_in", report.bytes_in},
      {"bytes", report.bytes_out},
      {"bits_per_weight", report.bits_per_weight},
      {"seconds", report.seconds},
      {"peak_rss", report.peak_rss},
      {"processes", report.ranks},
      {"notes", report.notes}};
}

}  // namespace pennyweight
