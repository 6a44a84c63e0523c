#include "pipeline/dynamic_quant.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "calibration/sample.h"
#include "core/atomic_file.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/process.h"
#include "eval/evaluate.h"
#include "method/gptq_stage.h"
#include "pipeline/check_output.h"
#include "pipeline/conversion.h"
#include "pipeline/method_run.h"
#include "pipeline/sensitivity_file.h"
#include "pipeline/write_model.h"
#include "text/tokenizer.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "dynamic-quant";
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, kWhere, what);
}

/// What a module may become, and what each costs.
struct Choice {
  std::string path;
  std::vector<Candidate> candidates;  // that fit it
  Alternatives costs;
  double sensitivity = 0;
};

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
        model_(open_model(folder, options.assume_family)) {
    const auto high =
        make_quant_spec("affine", options.high_bits, options.high_group_size);
    candidates_ = options.candidates ? parse_candidates(*options.candidates)
                                     : std::vector<Candidate>{low_, high};
    if (!model_.quantized.empty()) {
      refuse(
          model_.checkpoint.folder().string() +
          " is quantized already; start from the full-precision model");
    }
    if (!options.target_size &&
        !(options.target_bpw > 0 && options.target_bpw <= 32)) {
      refuse("--target-bpw has to be above 0, and at most 32");
    }
    check_output(kWhere, folder, options.mlx_path);
    AtomicFolder(options.mlx_path, options.force);  // found out now, not late
    check_tokenizer(folder, kWhere, progress);
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
    if (!options_.sensitivities || options_.report_ppl) {
      data = load(fetch);
    }
    if (options_.sensitivities) {
      read(*options_.sensitivities);
    } else {
      measure(data);
    }
    const auto plan = choose();
    if (options_.then == "gptq") {
      round_by_gptq(plan, fetch);
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

  TokenData load(const FetchDatasetFn& fetch) {
    auto tokenizer = Tokenizer::load(folder_);
    auto data = load_data(
        tokenizer,
        options_.data,
        self_sampler(model_, tokenizer, progress_),
        fetch,
        progress_);
    result_.data = data.source;
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
    auto name = options_.model;
    std::replace(name.begin(), name.end(), '/', '_');
    result_.sensitivities = name + "_sensitivities.json";
    file().write(
        result_.sensitivities, measured, low_, list_homes(model_.spec));
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

  /// Alternatives of what fits the module; floats where nothing does.
  void add(const ModuleSpec& module, const ModuleLosses& found) {
    const int item = static_cast<int>(mx::size_of(model_.dtype));
    const int64_t stack = std::max<int64_t>(1, module.count);
    Choice choice{module.path, {}, {}, found.sensitivity};
    const auto offer = [&](const Candidate& candidate, double loss) {
      const int64_t bytes = candidate
          ? quantized_bytes(*candidate, module.out, module.in, item)
          : module.out * module.in * item;
      choice.candidates.push_back(candidate);
      choice.costs.bytes.push_back(stack * bytes);
      choice.costs.losses.push_back(loss);
    };
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if (!candidates_[i] ||
          (module.packable && fits(*candidates_[i], module.in))) {
        offer(candidates_[i], found.losses[i]);
      }
    }
    if (choice.candidates.empty()) {
      note(
          module.path + " stays in floats: " +
          (module.packable ? "its rows of " + std::to_string(module.in) +
                   " weights divide into no candidate's groups"
                           : std::string(kNotPackable)));
      offer(std::nullopt, 0);
    }
    choices_.push_back(std::move(choice));
  }

  QuantPlan plan_of(const std::vector<size_t>& chosen) const {
    QuantPlan plan;
    plan.common = low_;
    for (size_t i = 0; i < choices_.size(); ++i) {
      const auto& candidate = choices_[i].candidates[chosen[i]];
      plan.modules[choices_[i].path] = {
          candidate, candidate ? "" : "it was chosen to stay in floats"};
    }
    return plan;
  }

  Conversion conversion(const QuantPlan& plan) const {
    ConversionSettings settings;
    settings.dtype = model_.dtype;
    settings.plan = plan;
    return Conversion(model_, settings);
  }

  /// Bytes of all tensors under a plan; what is carried over unread counts
  /// towards a size, and not towards bits a weight.
  int64_t bytes_of(const QuantPlan& plan) const {
    const auto planned = conversion(plan);
    int64_t bytes = 0;
    for (const auto& tensor : planned.tensors()) {
      const bool carried = is_among(tensor.name, model_.spec.carried);
      bytes += carried && !options_.target_size
          ? 0
          : static_cast<int64_t>(plan_bytes(tensor));
    }
    return bytes;
  }

  QuantPlan choose() {
    std::vector<Alternatives> costs;
    int64_t modules = 0;  // of the first alternatives
    for (const Choice& choice : choices_) {
      costs.push_back(choice.costs);
      modules += choice.costs.bytes.front();
    }
    const int64_t target = options_.target_size
        ? parse_bytes(*options_.target_size, "--target-size")
        : static_cast<int64_t>(std::floor(
              options_.target_bpw / 8 *
              static_cast<double>(result_.parameters)));
    const auto first = plan_of(std::vector<size_t>(choices_.size(), 0));
    const int64_t others = bytes_of(first) - modules;
    const auto chosen = choose_alternatives(costs, target - others);
    for (size_t i = 0; i < choices_.size(); ++i) {
      result_.modules.push_back(
          {choices_[i].path,
           choices_[i].candidates[chosen[i]],
           choices_[i].sensitivity,
           choices_[i].costs.losses[chosen[i]]});
    }
    return plan_of(chosen);
  }

  void write(const QuantPlan& plan) {
    AtomicFolder output(options_.mlx_path, options_.force);
    auto written = write_model(
        model_,
        conversion(plan),
        output.path(),
        options_.model,
        "Mixed widths by sensitivity, rounded to nearest, at %bpw bits a "
        "weight, scales included.",
        kWhere,
        progress_);
    output.commit();
    result_.output = options_.mlx_path;
    result_.bytes_out = written.bytes;
    result_.bits_per_weight = written.bits_per_weight;
  }

  // A run of its own, with a work folder that it may be gone on with from.
  void round_by_gptq(const QuantPlan& plan, const FetchDatasetFn& fetch) {
    WalkOptions walk;
    walk.model = options_.model;
    walk.mlx_path = options_.mlx_path;
    walk.data = options_.data;
    walk.assume_family = options_.assume_family;
    walk.batch_size = options_.batch_size;
    walk.force = options_.force;
    const Ranks alone;
    MethodRun run(kWhere, folder_, walk, alone, progress_);
    run.calibrate(plan, true, fetch);
    GptqOptions gptq;
    if (run.note_unchecked()) {
      gptq.shift = 0;
    }
    GptqStage stage(gptq);
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
  std::vector<Choice> choices_;
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
