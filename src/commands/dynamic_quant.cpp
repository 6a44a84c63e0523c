#include "commands/dynamic_quant.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/process.h"
#include "eval/evaluate.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "method/gptq/stage.h"
#include "method/widths/sensitivity_file.h"
#include "pass/sample.h"
#include "run/check_output.h"
#include "run/method_run.h"
#include "run/width_plan.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "dynamic-quant";
constexpr const char* kSensitivities = "sensitivities.json";
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, kWhere, what);
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  std::error_code ignored;
  const auto inner = fs::weakly_canonical(whole_path(path), ignored);
  const auto outer = fs::weakly_canonical(whole_path(folder), ignored);
  return std::ranges::mismatch(outer, inner).in1 == outer.end();
}

std::vector<Candidate> list_candidates(const DynamicQuantOptions& options) {
  if (options.candidates) {
    return parse_candidates(*options.candidates);
  }
  return {
      make_quant_spec("affine", options.low_bits, options.low_group_size),
      make_quant_spec("affine", options.high_bits, options.high_group_size)};
}

class Run {
 public:
  Run(const fs::path& folder,
      const DynamicQuantOptions& options,
      const ProgressFn& progress)
      : folder_(folder),
        options_(options),
        progress_(progress),
        low_(make_quant_spec(
            "affine",
            options.low_bits,
            options.low_group_size)),
        model_(open_source(folder, options.assume_family, progress)),
        candidates_(list_candidates(options)),
        target_(size_target(options.target_bpw, options.target_size, kWhere)),
        widths_(model_, candidates_, low_) {
    if (!model_.quantized.empty()) {
      refuse(
          model_.checkpoint.folder().string() +
          " is quantized already; start from the full-precision model");
    }
    check_folders(
        kWhere, folder, options.mlx_path, options.force, true, progress);
    check_target();
    if (options.sensitivities_out) {
      if (options.sensitivities) {
        refuse(
            "--sensitivities-out is for what is measured, and --sensitivities "
            "measures nothing; leave one out");
      }
      // Written when it is measured, it would go with a folder that is
      // replaced.
      if (is_inside(*options.sensitivities_out, options.mlx_path)) {
        refuse(
            "--sensitivities-out " + *options.sensitivities_out +
            " lies in the output folder; leave it out, and they go there");
      }
      file_.emplace(
          *options.sensitivities_out, options.force, "--sensitivities-out");
    }
    for (const auto& text : model_.spec.notes) {
      note(text);
    }
  }

  DynamicReport run(const FetchDatasetFn& fetch) {
    const auto start = Clock::now();
    const auto size = model_size(model_);
    result_.parameters = size.parameters;
    result_.bytes_in = size.bytes;
    TokenData data;
    if (!options_.sensitivities || options_.report_ppl ||
        options_.then == "gptq") {
      data = load(fetch);
    }
    if (options_.sensitivities) {
      read(*options_.sensitivities);
    } else {
      measure(data);
    }
    const auto plan = choose();
    if (options_.then == "gptq") {
      round_by_gptq(plan, data);
    } else {
      write(plan);
    }
    if (options_.report_ppl) {
      result_.perplexity_before = perplexity(model_, data);
      result_.perplexity_after =
          perplexity(open_model(options_.mlx_path), data);
    }
    result_.seconds = seconds_since(start);
    result_.peak_rss = peak_rss();
    return std::move(result_);
  }

 private:
  void note(const std::string& text) {
    result_.notes.push_back(text);
    warn(progress_, kWhere, text);
  }

  // Found out now, not when everything has been measured.
  void check_target() const {
    WidthChooser widths(model_, candidates_, low_);
    for (const auto& module : list_homes(model_.spec)) {
      widths.add(module, std::vector<double>(candidates_.size(), 0.0));
    }
    widths.choose(target_);
  }

  TokenData load(const FetchDatasetFn& fetch) {
    TextReader reader(folder_);
    auto data = load_data(
        reader,
        options_.data,
        self_sampler(model_, reader.facts(), progress_),
        fetch,
        progress_);
    result_.data = data.source;
    result_.data_use = data.use;
    result_.tokens = data.tokens;
    result_.notes.insert(
        result_.notes.end(), data.warnings.begin(), data.warnings.end());
    return data;
  }

  void measure(const TokenData& data) {
    const auto start = Clock::now();
    SensitivitySettings settings{
        .low = low_,
        .candidates = candidates_,
        .scratch_folder = scratch_folder()};
    if (options_.batch_size < 0) {
      refuse("--batch-size is negative");
    }
    if (options_.batch_size > 0) {
      settings.batch_tokens =
          int64_t{options_.batch_size} * options_.data.sequence_length;
    }
    ops::keep_freed_memory();
    const auto measured =
        measure_sensitivities(model_, data.sequences, settings, progress_);
    result_.low_kl = measured.loss;
    result_.pass_seconds = seconds_since(start);
    for (const auto& module : list_homes(model_.spec)) {
      add(module, module_losses(measured, module));
    }
    const auto text = file().text(measured, low_, list_homes(model_.spec));
    if (file_) {
      result_.sensitivities = *options_.sensitivities_out;
      file_->write(text);
    } else {
      result_.sensitivities =
          (fs::path(options_.mlx_path) / kSensitivities).string();
      measured_ = text;
    }
  }

  fs::path scratch_folder() const {
    const auto parent = fs::absolute(options_.mlx_path).parent_path();
    return parent.empty() ? fs::path(".") : parent;
  }

  SensitivityFile file() const {
    return {candidates_, options_.candidates.has_value()};
  }

  void read(const std::string& name) {
    result_.sensitivities = name;
    const auto modules = list_homes(model_.spec);
    const auto losses = file().read(name, modules);
    for (size_t i = 0; i < modules.size(); ++i) {
      add(modules[i], losses[i]);
    }
  }

  void add(const ModuleSpec& module, const ModuleLosses& found) {
    sensitivities_[module.path] = found.sensitivity;
    if (const auto text = widths_.add(module, found.losses)) {
      note(*text);
    }
  }

  QuantPlan choose() {
    const auto chosen = widths_.choose(target_);
    for (const auto& own : chosen.modules) {
      const auto& path = own.module.path;
      result_.modules.push_back(
          {path, own.spec, sensitivities_.at(path), own.loss});
    }
    return chosen.plan;
  }

  void write(const QuantPlan& plan) {
    AtomicFolder output(options_.mlx_path, options_.force);
    ConversionSettings settings;
    settings.dtype = output_dtype(model_);
    settings.plan = plan;
    auto written = write_model(
        model_,
        Conversion(model_, settings),
        output.path(),
        options_.model,
        "Mixed widths by sensitivity, rounded to nearest, at %bpw bits a "
        "weight, scales included.",
        kWhere,
        progress_);
    if (measured_) {
      write_file(output.path() / kSensitivities, *measured_);
    }
    output.commit();
    result_.output = options_.mlx_path;
    result_.bytes_out = written.bytes;
    result_.bits_per_weight = written.bits_per_weight;
  }

  // A run of its own, with a work folder that it may be gone on with from.
  void round_by_gptq(const QuantPlan& plan, const TokenData& data) {
    WalkOptions walk;
    walk.model = options_.model;
    walk.mlx_path = options_.mlx_path;
    walk.data = options_.data;
    walk.assume_family = options_.assume_family;
    walk.batch_size = options_.batch_size;
    walk.force = options_.force;
    const Ranks alone;
    MethodRun run(kWhere, folder_, walk, alone, progress_);
    run.calibrate(plan, split_held_out(data.sequences, true), data.source);
    GptqOptions gptq;
    if (run.note_unchecked()) {
      gptq.shift = 0;
    }
    GptqStage stage(gptq);
    if (measured_) {
      run.add_file(kSensitivities, *measured_);
    }
    auto settings = options_to_json(options_, true);
    settings["plan"] = to_json(plan);
    const auto written =
        run.run(stage, settings, "Mixed widths by sensitivity, GPTQ");
    result_.then = to_json(written);
    result_.output = written.output;
    result_.bytes_out = written.bytes_out;
    result_.bits_per_weight = written.bits_per_weight;
    result_.notes.insert(
        result_.notes.end(), written.notes.begin(), written.notes.end());
  }

  double perplexity(const Model& model, const TokenData& data) const {
    std::vector<ScoredSequence> sequences;
    for (const auto& sequence : data.sequences) {
      sequences.push_back({sequence});
    }
    return evaluate(model, nullptr, sequences, {}, progress_).perplexity.value;
  }

  fs::path folder_;
  const DynamicQuantOptions& options_;
  ProgressFn progress_;
  QuantSpec low_;
  Model model_;
  std::vector<Candidate> candidates_;
  SizeTarget target_;
  WidthChooser widths_;
  std::map<std::string, double> sensitivities_;
  std::optional<OutputFile> file_;       // for what is measured
  std::optional<std::string> measured_;  // that goes into the output folder
  DynamicReport result_;
};

}  // namespace

DynamicReport dynamic_quant(
    const fs::path& model_folder,
    const DynamicQuantOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  return Run(model_folder, options, progress).run(fetch_dataset);
}

}  // namespace pennyweight
