#include "run/method_run.h"

#include <algorithm>

#include <mlx/memory.h>
#include <mlx/ops.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "core/text.h"
#include "core/version.h"
#include "export/write_model.h"
#include "method/gptq/table_fit.h"
#include "method/packed_block.h"
#include "ops/rounding/quantize.h"
#include "run/memory_plan.h"
#include "run/work/fingerprint.h"

namespace pennyweight {

namespace {

// Reads finished blocks while the output is put together, one at a time.
class FinishedBlocks {
 public:
  FinishedBlocks(
      const WorkFolder& work,
      const Model& model,
      const QuantPlan& plan,
      const PackedBlock& tables)
      : work_(work), model_(model), plan_(plan), tables_(tables) {
    for (const BlockSpec& block : model.spec.blocks) {
      for (const ModuleSpec& module : list_stored_modules(block)) {
        stored_modules_.emplace(module.path, module);
      }
      for (const NormSpec& norm : list_norms(block)) {
        norms_[norm.path] = block.index;
      }
    }
  }

  ops::QuantizedWeight packed(const std::string& module) {
    if (tables_.contains(module)) {
      return tables_.at(module);
    }
    auto stored = stored_modules_.find(module);
    if (stored == stored_modules_.end()) {
      return quantize(
          VocabTable(model_, module, model_.dtype), *plan_.at(module).spec);
    }
    go_to(stored->second.block);
    if (stored->second.count == 0) {
      return block_.packed.at(module);
    }
    std::vector<ops::QuantizedWeight> parts;
    for (int64_t i = 0; i < stored->second.count; ++i) {
      parts.push_back(block_.packed.at(part_path(module, i)));
    }
    return stack_packed(parts);
  }

  /// A tensor that scales were folded into.
  std::optional<mx::array> floats(const std::string& name) {
    const auto module = module_of(name);
    const auto stored = stored_modules_.find(module);
    const auto norm = norms_.find(module);
    if (stored == stored_modules_.end() && norm == norms_.end()) {
      return std::nullopt;
    }
    go_to(
        stored == stored_modules_.end() ? norm->second : stored->second.block);
    if (stored != stored_modules_.end() && stored->second.count > 0) {
      return stacked_floats(name, stored->second);
    }
    auto it = block_.floats.find(name);
    return it == block_.floats.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  // Parts that changed, among those that did not.
  std::optional<mx::array> stacked_floats(
      const std::string& name,
      const ModuleSpec& stored) const {
    const auto suffix = name.substr(stored.path.size());
    std::vector<mx::array> parts;
    bool changed = false;
    for (int64_t i = 0; i < stored.count; ++i) {
      auto it = block_.floats.find(part_path(stored.path, i) + suffix);
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
  const PackedBlock& tables_;
  std::map<std::string, ModuleSpec> stored_modules_;
  std::map<std::string, int> norms_;
  int current_ = -1;
  FinishedBlock block_;
};

/// How often each way of making a block was kept, and the last block's error:
/// nothing where a method has one way and measures none.
std::string describe_ways(const std::vector<BlockFigures>& blocks) {
  std::map<std::string, int> kept;
  for (const auto& block : blocks) {
    if (!block.kept.empty()) {
      ++kept[block.kept];
    }
  }
  std::string text;
  for (const auto& [name, count] : kept) {
    text += (text.empty() ? "blocks by what was kept: " : ", ") + name + ": " +
        std::to_string(count);
  }
  text += text.empty() ? "" : "\n";
  const auto error = blocks.empty() ? std::nullopt : blocks.back().error();
  if (error) {
    text +=
        "held-out error after the last block: " + fixed(100 * *error, 3) + "%";
    const auto& errors = blocks.back().held_out_error;
    if (const auto rtn = errors.find(kRtn); rtn != errors.end()) {
      text += std::string(", ") + kRtn + " in its place " +
          fixed(100 * rtn->second, 3) + "%";
    }
    text += "\n";
  }
  return text;
}

}  // namespace

MethodRun::MethodRun(
    Session& session,
    const Model& model,
    const fs::path& model_folder,
    const WalkOptions& options)
    : session_(session),
      model_(model),
      folder_(model_folder),
      options_(options),
      ranks_(session.group()) {
  if (model_.is_rounded()) {
    session_.refuse(
        model_.checkpoint.folder().string() +
        " is quantized already; start from the full-precision model");
  }
  if (options_.batch_size < 0) {
    session_.refuse("--batch-size is negative");
  }
  session_.check_folders(folder_, options_);
}

void MethodRun::calibrate(QuantPlan plan, bool hold_out) {
  auto data =
      session_.read_text(folder_, model_, options_.data, options_.memory_limit);
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
  Json kept = Json::array();
  for (const auto& [path, entry] : plan_.modules) {
    if (!entry.spec) {
      kept.push_back(path + ": " + entry.reason);
      if (!entry.asked) {
        warn(
            session_.progress(),
            session_.command(),
            path + " is not quantized: " + entry.reason);
      }
    }
  }
  split_ = std::move(text);
  fingerprint_ = fingerprint(split_.fit) + fingerprint(split_.held_out);
  auto& report = session_.report();
  report.data = source;
  report.figures["tokens"] = count_tokens(split_.fit);
  report.figures["held_out_tokens"] = count_tokens(split_.held_out);
  report.figures["kept"] = std::move(kept);
}

bool MethodRun::note_unchecked() {
  if (!split_.held_out.empty()) {
    return false;
  }
  session_.note(
      "the sequences are too few to hold any out: nothing is checked on text "
      "that it was not fitted to, and GPTQ's --shift is taken as 0");
  return true;
}

// What two runs must share for the one to go on with the other's work.
Json MethodRun::settings(const Json& options) const {
  Json settings;
  settings["method"] = session_.command();
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
  auto compared = settings_;
  compared.erase("model");  // has its own place
  const WorkSettings settings(compared, {{"model", identify(model_)}});
  std::unique_ptr<WorkFolder> work;
  ranks_.first_then_others([&] {
    work = std::make_unique<WorkFolder>(
        options_.mlx_path, settings, policy, ranks_.first());
  });
  session_.note(work->warnings());
  return work;
}

// Says what the run will take, and refuses what can't be.
WalkSettings MethodRun::plan_walk(
    const BlockMethod& method,
    const WorkFolder& work) {
  WalkSettings walk;
  walk.scratch_folder = work.path();
  if (options_.batch_size > 0) {
    walk.batch_tokens =
        int64_t{options_.batch_size} * options_.data.sequence_length;
  }
  MemoryDemand demand{
      tokens() / ranks_.size() + options_.data.sequence_length,
      walk.batch_tokens,
      std::nullopt};
  if (options_.memory_limit) {
    demand.limit = parse_bytes(*options_.memory_limit, "--memory-limit");
  }
  ops::keep_freed_memory(static_cast<size_t>(demand.freed_bytes()));
  const auto plan = make_memory_plan(model_, plan_, method, demand);
  walk.activation_bytes = plan.in_memory;
  session_.say(pennyweight::describe(plan));
  require_disk(
      plan.disk,
      work.path().parent_path(),
      plan.scratch > 0 ? "output, finished blocks, scratch file"
                       : "output, finished blocks");
  if (work.resumed()) {
    session_.say(
        "going on after " + std::to_string(work.finished()) + " of " +
        std::to_string(model_.spec.blocks.size()) + " blocks");
  }
  session_.report().figures["plan"] = {
      {"peak", plan.peak()},
      {"activations_in_memory", plan.in_memory},
      {"scratch", plan.scratch},
      {"disk", plan.disk}};
  return walk;
}

// Of all blocks, in figures and in words.
void MethodRun::describe(const WorkFolder& work) {
  std::vector<BlockFigures> blocks;
  Json json = Json::array();
  for (int i = 0; i < work.finished(); ++i) {
    json.push_back(work.load_report(i));
    blocks.push_back(block_figures_from_json(json.back()));
  }
  auto& report = session_.report();
  report.figures["blocks"] = std::move(json);
  const auto& kept = report.figures["kept"];
  report.text += "data: " + shown(report.data) + "; " +
      std::to_string(count_tokens(split_.fit)) + " tokens, " +
      std::to_string(count_tokens(split_.held_out)) + " more held out\n" +
      describe_ways(blocks);
  for (const Json& module : kept) {
    report.text += "not quantized: " + shown(module.get<std::string>()) + "\n";
  }
}

void MethodRun::write_output(
    const WorkFolder& work,
    const PackedBlock& tables,
    const std::string& title) {
  FinishedBlocks blocks(work, model_, plan_, tables);
  ConversionSettings settings;
  settings.dtype = output_dtype(model_);
  settings.scales_dtype = model_.dtype;
  settings.plan = plan_;
  settings.mtp = !options_.part && !options_.drop_mtp;
  settings.source = [&](const std::string& module) {
    return blocks.packed(module);
  };
  settings.floats = [&](const std::string& name) {
    return blocks.floats(name);
  };
  Conversion conversion(model_, settings);
  AtomicFolder output(options_.mlx_path, options_.force);
  auto& report = session_.report();
  auto written = write_model(
      model_,
      conversion,
      output.path(),
      options_.model,
      title + " (%bpw a weight with scales), calibrated on " +
          std::to_string(tokens()) + " tokens of " + report.data + "." + card_,
      session_.command(),
      session_.progress());
  for (const auto& [name, text] : added_) {
    write_file(output.path() / name, text);
  }
  report.bytes_out = written.bytes;
  report.mtp = written.mtp;
  report.bits_per_weight = written.bits_per_weight;
  output.commit();
}

void MethodRun::run(
    BlockMethod& method,
    const Json& options,
    const std::string& title) {
  // What the walk reads first, and what it reads only when it is done.
  require_finite(model_, load_embedding_and_head(model_, model_.dtype));
  settings_ = settings(options);
  auto& report = session_.report();
  report.figures["settings"] = settings_;
  auto work = open_work();
  report.figures["resumed_blocks"] = work->finished();
  auto walk = plan_walk(method, *work);
  BlockWalk blocks(model_, plan_, method, split_, walk, ranks_);
  TableFit tables;
  if (options_.fit_embed) {
    tables = fit_tables(
        model_,
        plan_,
        blocks.table_batches(),
        ranks_,
        session_.command(),
        session_.progress());
    mx::clear_cache();  // blocks have arrays of other sizes
  }
  report.figures["embedding_and_head"] = tables.figures;
  blocks.run(*work, tables.packed, session_.progress());
  ranks_.barrier();
  report.output = options_.mlx_path;
  if (ranks_.first()) {
    describe(*work);
    write_output(*work, tables.packed, title);
    work->remove();
  }
}

}  // namespace pennyweight
