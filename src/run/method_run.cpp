#include "run/method_run.h"

#include <algorithm>

#include <mlx/memory.h>
#include <mlx/ops.h>

#include "core/atomic_file.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/process.h"
#include "core/version.h"
#include "export/write_model.h"
#include "method/gptq/outer_fit.h"
#include "method/packed_block.h"
#include "ops/rounding/quantize.h"
#include "pass/sample.h"
#include "run/check_output.h"
#include "run/work/fingerprint.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

// Reads finished blocks while the output is put together, one at a time.
class FinishedBlocks {
 public:
  FinishedBlocks(
      const WorkFolder& work,
      const Model& model,
      const QuantPlan& plan,
      const PackedBlock& outer)
      : work_(work), model_(model), plan_(plan), outer_(outer) {
    for (const BlockSpec& block : model.spec.blocks) {
      for (const ModuleSpec& module : list_homes(block)) {
        homes_.emplace(module.path, module);
      }
      for (const NormSpec& norm : list_norms(block)) {
        norms_[norm.path] = block.index;
      }
    }
  }

  ops::QuantizedWeight packed(const std::string& module) {
    if (outer_.contains(module)) {
      return outer_.at(module);
    }
    auto home = homes_.find(module);
    if (home == homes_.end()) {
      return quantize(
          OuterTable(model_, module, model_.dtype), *plan_.at(module).spec);
    }
    go_to(home->second.block);
    if (home->second.count == 0) {
      return block_.packed.at(module);
    }
    std::vector<ops::QuantizedWeight> parts;
    for (int64_t i = 0; i < home->second.count; ++i) {
      parts.push_back(block_.packed.at(part_path(module, i)));
    }
    return stack_packed(parts);
  }

  /// A tensor that scales were folded into.
  std::optional<mx::array> floats(const std::string& name) {
    const auto module = module_of(name);
    const auto home = homes_.find(module);
    const auto norm = norms_.find(module);
    if (home == homes_.end() && norm == norms_.end()) {
      return std::nullopt;
    }
    go_to(home == homes_.end() ? norm->second : home->second.block);
    if (home != homes_.end() && home->second.count > 0) {
      return stacked_floats(name, home->second);
    }
    auto it = block_.floats.find(name);
    return it == block_.floats.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  // Parts that changed, among those that did not.
  std::optional<mx::array> stacked_floats(
      const std::string& name,
      const ModuleSpec& home) const {
    const auto suffix = name.substr(home.path.size());
    std::vector<mx::array> parts;
    bool changed = false;
    for (int64_t i = 0; i < home.count; ++i) {
      auto it = block_.floats.find(part_path(home.path, i) + suffix);
      changed = changed || it != block_.floats.end();
      parts.push_back(
          it == block_.floats.end()
              ? mx::astype(model_.load_part(name, i), model_.dtype)
              : it->second);
    }
    return changed ? std::optional(mx::stack(parts)) : std::nullopt;
  }

  void go_to(int block) {
    if (block != current_) {
      current_ = block;
      block_ = finished_block(
          work_.load_block(current_),
          model_.spec.blocks[static_cast<size_t>(current_)],
          plan_);
    }
  }

  const WorkFolder& work_;
  const Model& model_;
  const QuantPlan& plan_;
  const PackedBlock& outer_;
  std::map<std::string, ModuleSpec> homes_;
  std::map<std::string, int> norms_;
  int current_ = -1;
  FinishedBlock block_;
};

}  // namespace

QuantSpec router_spec() {
  return make_quant_spec("affine", 8, 64);
}

QuantPlan plan_modules(
    const Model& model,
    const QuantSpec& linears,
    const QuantSpec& embedding,
    const QuantSpec& head) {
  QuantPlan plan{linears, {}};
  const std::map<ModuleSpec::Kind, QuantSpec> specs{
      {ModuleSpec::Kind::linear, linears},
      {ModuleSpec::Kind::router, router_spec()},
      {ModuleSpec::Kind::embedding, embedding},
      {ModuleSpec::Kind::head, head}};
  for (const ModuleSpec& module : list_homes(model.spec)) {
    const QuantSpec& spec = specs.at(module.kind);
    auto& entry = plan.modules[module.path];
    if (!module.packable) {
      entry.reason = kNotPackable;
    } else if (fits(spec, module.in)) {
      entry.spec = spec;
    } else {
      entry.reason = "rows of " + std::to_string(module.in) +
          " weights don't divide into groups of " +
          std::to_string(spec.group_size);
    }
  }
  keep_published(model, plan);
  return plan;
}

MethodRun::MethodRun(
    const std::string& name,
    const fs::path& model_folder,
    const WalkOptions& options,
    const Ranks& ranks,
    const ProgressFn& progress)
    : name_(name),
      folder_(model_folder),
      options_(options),
      ranks_(ranks),
      progress_(progress),
      start_(std::chrono::steady_clock::now()),
      model_(open_source(model_folder, options.assume_family, progress)) {
  auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, name_, what);
  };
  if (!model_.quantized.empty() && !model_.published_packed) {
    refuse(
        model_.checkpoint.folder().string() +
        " is quantized already; start from the full-precision model");
  }
  if (options_.batch_size < 0) {
    refuse("--batch-size is negative");
  }
  check_folders(
      name_,
      folder_,
      options_.mlx_path,
      options_.force,
      ranks_.first(),
      progress_);
  for (const auto& text : model_.spec.notes) {
    note(text);
  }
}

void MethodRun::note(const std::string& text) {
  result_.notes.push_back(text);
  warn(progress_, name_, text);
}

void MethodRun::calibrate(
    QuantPlan plan,
    bool hold_out,
    const FetchDatasetFn& fetch_dataset) {
  TextReader reader(folder_, options_.memory_limit);
  auto data = load_data(
      reader,
      options_.data,
      self_sampler(model_, reader.facts(), progress_),
      fetch_dataset,
      progress_);
  result_.notes.insert(
      result_.notes.end(), data.warnings.begin(), data.warnings.end());
  result_.data_use = data.use;
  calibrate(
      std::move(plan),
      split_held_out(std::move(data.sequences), hold_out),
      data.source);
}

void MethodRun::calibrate(
    QuantPlan plan,
    CalibrationSplit text,
    const std::string& source) {
  plan_ = std::move(plan);
  int64_t published = 0;
  for (const auto& [path, entry] : plan_.modules) {
    published += entry.published;
    if (!entry.spec) {
      result_.kept.push_back(path + ": " + entry.reason);
      warn(progress_, name_, path + " is not quantized: " + entry.reason);
    }
  }
  if (published > 0) {
    note(
        std::to_string(published) +
        " modules are published packed (mxfp4) and stay as they are");
  }
  split_ = std::move(text);
  fingerprint_ = fingerprint(split_.fit) + fingerprint(split_.held_out);
  result_.data = source;
  result_.tokens = count_tokens(split_.fit);
  result_.held_out_tokens = count_tokens(split_.held_out);
}

bool MethodRun::note_unchecked() {
  if (!split_.held_out.empty()) {
    return false;
  }
  note(
      "the sequences are too few to hold any out: nothing is checked on text "
      "that it was not fitted to, and GPTQ's --shift is taken as 0");
  return true;
}

// What two runs must share for the one to go on with the other's work.
Json MethodRun::settings(const Json& options) const {
  Json settings;
  settings["method"] = name_;
  settings["version"] = version();
  settings["options"] = options;
  settings["model"] = fingerprint(model_);
  settings["data"] = fingerprint_;
  settings["processes"] = ranks_.size();
  return settings;
}

// The first rank makes it ready, then the others read.
std::unique_ptr<WorkFolder> MethodRun::open_work() {
  const ResumePolicy policy{options_.resume, options_.force, options_.part};
  auto compared = result_.settings;
  compared.erase("model");  // has its own place
  const WorkSettings settings(compared, {{"model", identify(model_)}});
  std::unique_ptr<WorkFolder> work;
  ranks_.first_then_others([&] {
    work = std::make_unique<WorkFolder>(
        options_.mlx_path, settings, policy, ranks_.first());
  });
  for (const auto& text : work->warnings()) {
    note(text);
  }
  return work;
}

// Says what the run will take, and refuses what can't be.
WalkSettings MethodRun::plan_walk(const Stage& stage, const WorkFolder& work) {
  WalkSettings walk;
  walk.scratch_folder = work.path();
  if (options_.batch_size > 0) {
    walk.batch_tokens =
        int64_t{options_.batch_size} * options_.data.sequence_length;
  }
  MemoryDemand demand{
      (result_.tokens + result_.held_out_tokens) / ranks_.size() +
          options_.data.sequence_length,
      walk.batch_tokens,
      std::nullopt};
  if (options_.memory_limit) {
    demand.limit = parse_bytes(*options_.memory_limit, "--memory-limit");
  }
  ops::keep_freed_memory(static_cast<size_t>(demand.freed_bytes()));
  result_.plan = make_memory_plan(model_, plan_, stage, demand);
  walk.activation_bytes = result_.plan.in_memory;
  report(progress_, {name_, 0, 0, "", describe(result_.plan)});
  require_disk(result_.plan, work.path().parent_path().string());
  if (work.resumed()) {
    auto text = "going on after " + std::to_string(work.finished()) + " of " +
        std::to_string(model_.spec.blocks.size()) + " blocks";
    report(progress_, {name_, 0, 0, "", text});
  }
  return walk;
}

void MethodRun::write_output(
    const WorkFolder& work,
    const PackedBlock& outer,
    const std::string& summary) {
  FinishedBlocks blocks(work, model_, plan_, outer);
  ConversionSettings settings;
  settings.dtype = output_dtype(model_);
  settings.scales_dtype = model_.dtype;
  settings.plan = plan_;
  settings.source = [&](const std::string& module) {
    return blocks.packed(module);
  };
  settings.floats = [&](const std::string& name) {
    return blocks.floats(name);
  };
  Conversion conversion(model_, settings);
  AtomicFolder output(options_.mlx_path, options_.force);
  auto written = write_model(
      model_,
      conversion,
      output.path(),
      options_.model,
      summary + " (%bpw a weight with scales), calibrated on " +
          std::to_string(result_.tokens + result_.held_out_tokens) +
          " tokens of " + result_.data + ".",
      name_,
      progress_);
  for (const auto& [name, text] : added_) {
    write_file(output.path() / name, text);
  }
  result_.bytes_out = written.bytes;
  result_.bits_per_weight = written.bits_per_weight;
  output.commit();
}

WalkReport
MethodRun::run(Stage& stage, const Json& options, const std::string& summary) {
  // What the walk reads first, and what it reads only when it is done.
  require_finite(model_, load_outer(model_, model_.dtype));
  result_.settings = settings(options);
  auto work = open_work();
  result_.resumed_blocks = work->finished();
  auto walk = plan_walk(stage, *work);
  BlockWalk blocks(model_, plan_, stage, split_, walk, ranks_);
  OuterFit outer;
  if (options_.fit_embed) {
    outer = fit_outer(
        model_, plan_, blocks.outer_batches(), ranks_, name_, progress_);
    result_.outer = outer.figures;
    mx::clear_cache();  // blocks have arrays of other sizes
  }
  blocks.run(*work, outer.packed, progress_);
  ranks_.barrier();

  result_.output = options_.mlx_path;
  result_.ranks = ranks_.size();
  auto size = model_size(model_);
  result_.parameters = size.parameters;
  result_.bytes_in = size.bytes;
  if (ranks_.first()) {
    for (int i = 0; i < work->finished(); ++i) {
      result_.blocks.push_back(work->load_report(i));
    }
    write_output(*work, outer.packed, summary);
    work->remove();
  }
  result_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
          .count();
  result_.peak_rss = peak_rss();
  return result_;
}

}  // namespace pennyweight
