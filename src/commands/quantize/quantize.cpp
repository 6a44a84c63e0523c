#include "commands/quantize/quantize.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include <mlx/memory.h>

#include "commands/quantize/report.h"
#include "commands/quantize/stages.h"
#include "core/atomic_file.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/json_text.h"
#include "core/process.h"
#include "core/version.h"
#include "export/report_page.h"
#include "kernels/dispatch.h"
#include "run/check_output.h"
#include "run/recipe.h"
#include "run/time/stage_budget.h"
#include "run/work/fingerprint.h"
#include "run/work/staged_work.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "quantize";
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, kWhere, what);
}

class Run {
 public:
  Run(const fs::path& folder,
      const QuantizeOptions& options,
      const ProgressFn& progress)
      : folder_(folder),
        options_(options),
        progress_(progress),
        start_(Clock::now()),
        recipe_(
            options.recipe ? std::optional(read_recipe(*options.recipe))
                           : std::nullopt),
        model_(open_full_model(folder, assumed(), kWhere)),
        sizes_(recipe_ ? recipe_->sizes : stage_sizes(options.plan)) {
    if (recipe_) {
      refuse_beside_recipe(options);
    } else {
      check_target();
    }
    if (options.plan.mix.seed > 0xffffffff) {
      refuse("--seed has to be below 2^32");
    }
    if (options.time_limit) {
      parse_seconds(*options.time_limit, "--time-limit");
    }
    check_folders(
        kWhere, folder, options.output, options.force, true, progress);
    for (const auto& text : model_.spec.notes) {
      note(text);
    }
    if (recipe_) {
      adopt(*recipe_);
    }
  }

  QuantizeReport run(const FetchDatasetFn& fetch) {
    const auto size = model_size(model_);
    result_.parameters = size.parameters;
    result_.bytes_in = size.bytes;
    load(fetch);
    open_work();
    if (options_.time_limit && !recipe_) {
      budget_.emplace(
          TimeLimit(
              model_,
              mix_.sequence_length,
              measure_rates(model_, mix_.sequence_length),
              parse_seconds(*options_.time_limit, "--time-limit")),
          start_,
          *work_,
          [this](const std::string& text) { note(text); });
    }
    plan_widths();
    adapt_to_widths();
    run_stages();
    write();
    result_.seconds = seconds_since(start_);
    return std::move(result_);
  }

 private:
  void note(const std::string& text) {
    result_.notes.push_back(text);
    warn(progress_, kWhere, text);
  }
  void say(const std::string& text) const {
    report(progress_, {kWhere, 0, 0, "", text});
  }

  // Found out now, not when costs have been measured.
  void check_target() const {
    const auto all = list_candidates(options_.plan, options_.target);
    std::vector<std::string> notes;
    choose_widths(
        priced_widths(model_, all, {}, notes),
        model_,
        all,
        options_.target,
        kWhere);
  }

  PlanOptions assumed() const {
    auto plan = options_.plan;
    if (recipe_ && plan.assume_family.empty()) {
      plan.assume_family = recipe_->assume_family;
    }
    return plan;
  }

  // What the recipe says goes, but where the text lies may have changed.
  void adopt(const Recipe& recipe) {
    options_.plan = assumed();
    const auto given = options_.plan.mix.data_path;
    options_.plan.mix = recipe.mix;
    if (!given.empty()) {
      options_.plan.mix.data_path = given;
    }
    if (is_comparable(recipe.model_fingerprint) &&
        recipe.model_fingerprint != fingerprint(model_)) {
      refuse(
          *options_.recipe + " is of another model (" + recipe.model +
          "); quantize that, or leave out --recipe");
    }
    if (!is_comparable(recipe.model_fingerprint)) {
      note(
          *options_.recipe +
          " is older than the way models and texts are told apart now: "
          "whether these are the recipe's is not known");
    }
    widths_ = recipe_widths(model_, recipe);
    for (const auto& text : differences(recipe, *options_.recipe, version())) {
      note(text);
    }
  }

  void load(const FetchDatasetFn& fetch) {
    TextReader reader(folder_, options_.plan.memory_limit);
    mix_size_ = recipe_ ? recipe_->mix_size
                        : MixSize{
                              .fit = sizes_.fit_sequences(),
                              .gate = sizes_.gate_sequences,
                              .report = sizes_.report_sequences};
    mix_ = load_mix(
        model_, reader, options_.plan.mix, mix_size_, fetch, progress_);
    result_.notes.insert(
        result_.notes.end(), mix_.notes.begin(), mix_.notes.end());
    if (recipe_ && is_comparable(recipe_->model_fingerprint) &&
        recipe_->mix_fingerprint != mix_fingerprint()) {
      note(
          "the text is not the recipe's, so the result will be another; give "
          "--data-path if it lies elsewhere now");
    }
  }

  std::string mix_fingerprint() const {
    return fingerprint(mix_.fit) + fingerprint(mix_.gate);
  }

  void open_work() {
    Json settings{
        {"method", kWhere},
        {"version", version()},
        {"options", options_to_json(options_, true)},
        {"data", mix_fingerprint()}};
    if (recipe_) {
      settings["recipe"] = to_json(*recipe_);
    }
    work_.emplace(
        options_.output,
        WorkSettings(settings, {{"model", identify(model_)}}),
        ResumePolicy{options_.resume, options_.force});
    for (const auto& text : work_->warnings()) {
      note(text);
    }
    for (const auto& name : drop_damaged_stages(*work_, recipe_.has_value())) {
      note(
          (work_->stages() / name).string() +
          " is not as the unfinished run left it: it is made again");
    }
    if (work_->resumed()) {
      say("going on with an unfinished run");
    } else if (recipe_) {
      work_->save();  // stages go on too, and nothing is measured before them
    }
  }

  void plan_widths() {
    if (recipe_) {
      return;
    }
    const auto all = list_candidates(options_.plan, options_.target);
    measured_ = all.size() > 1;
    if (budget_ && measured_) {
      budget_->fit_costs(sizes_);
    }
    const auto costs = measured_
        ? work_->costs(
              model_, mix_.fit, all, sizes_, options_.plan.mix.seed, progress_)
        : RoundingCosts{};
    std::vector<std::string> notes;
    chooser_.emplace(priced_widths(model_, all, costs, notes));
    for (const auto& text : notes) {
      note(text);
    }
    widths_ = choose_widths(*chooser_, model_, all, options_.target, kWhere);
  }

  void adapt_to_widths() {
    if (recipe_) {
      return;
    }
    if (!learns(*widths_)) {
      sizes_.learn_steps = 0;
    }
    if (budget_) {
      budget_->begin(*widths_, sizes_);
    }
  }

  void fit_time(const std::string& stage) {
    if (budget_) {
      budget_->fit(stage, sizes_);
    }
  }

  StageContext context() const {
    return {
        model_,
        folder_,
        options_.plan,
        mix_,
        *widths_,
        work_->stages(),
        progress_};
  }

  void run_stages() {
    const bool all = !recipe_;
    const auto wanted = [&](const char* name) {
      return all || std::ranges::count(recipe_->stages, name) > 0;
    };
    fit_time("nearest");
    if (wanted("nearest")) {
      stage("nearest", [&](const fs::path& output) {
        return run_nearest(context(), output);
      });
    }
    fit_time("gptq");
    if (wanted("gptq")) {
      auto sizes = sizes_;
      sizes.learn_steps = 0;
      stage("gptq", [&, sizes](const fs::path& output) {
        return run_rounding(context(), sizes, "gptq", output);
      });
    }
    fit_time("learned");
    if (wanted("learned") && sizes_.learn_steps > 0) {
      stage("learned", [&](const fs::path& output) {
        return run_rounding(context(), sizes_, "learned", output);
      });
    }
    if (best_.empty()) {
      throw Error(
          ErrorCode::numeric,
          kWhere,
          "no stage leaves a model of finite probabilities at this size; give "
          "a larger one");
    }
    fit_time("dwq");
    if (wanted("dwq") && sizes_.dwq_sequences > 0) {
      stage("dwq", [&](const fs::path& output) {
        return run_dwq(context(), sizes_, work_->stages() / best_, output);
      });
    }
  }

  /// Does a stage, or reads what it came to before a kill; keeps it where the
  /// KL on the gate's text is the least so far.
  void stage(
      const std::string& name,
      const std::function<Json(const fs::path& output)>& body) {
    Json& done = work_->state()["stages"];
    if (!done.contains(name)) {
      const auto start = Clock::now();
      const auto output = work_->fresh_stage(name);
      Json figures = body(output);
      mx::clear_cache();  // later stages have arrays of other sizes
      done[name] = {
          {"kl", finite_kl(output)},
          {"seconds", seconds_since(start)},
          {"files", work_->sums(name)},
          {"figures", figures}};
      work_->save();
    }
    const Json& found = done[name];
    if (budget_) {
      budget_->took(name, found.at("seconds").get<double>(), sizes_);
    }
    const bool finite = !found.at("kl").is_null();
    StageOutcome outcome{
        .name = name,
        .kl = finite ? found.at("kl").get<double>()
                     : std::numeric_limits<double>::infinity(),
        .seconds = found.at("seconds").get<double>(),
        .figures = found.at("figures")};
    outcome.kept = finite && (outcome.kl < best_kl_ || recipe_);
    say(name + ": KL " + std::to_string(outcome.kl) +
        (outcome.kept ? "" : ", no better: not kept"));
    if (outcome.kept) {
      if (!best_.empty()) {
        work_->drop_stage(best_);
      }
      best_ = name;
      best_kl_ = outcome.kl;
    } else {
      outcome.note = finite ? "not better on the gate's text"
                            : "its probabilities are not finite";
      if (!finite) {
        note(name + ": " + outcome.note + "; not kept");
      }
      work_->drop_stage(name);
    }
    result_.stages.push_back(std::move(outcome));
  }

  /// On the gate's text; null where a model has overflown.
  Json finite_kl(const fs::path& output) {
    try {
      const auto found = divergence(context(), output, mix_.gate, &gate_);
      return found.reference->kl.mean.value;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::numeric) {
        throw;
      }
      return nullptr;
    }
  }

  Recipe recipe() const {
    Recipe made;
    made.version = version();
    made.kernels = kernels::kernel_kind();
    made.model = options_.plan.model;
    made.model_fingerprint = fingerprint(model_);
    made.assume_family = options_.plan.assume_family;
    made.mix = options_.plan.mix;
    made.mix_size = mix_size_;
    made.mix_fingerprint = mix_fingerprint();
    made.target =
        recipe_ ? recipe_->target : options_to_json(options_.target, true);
    for (const auto& own : widths_->modules) {
      made.widths[own.module.path] = own.spec;
    }
    made.stages = kept_stages();
    made.sizes = sizes_;
    for (const auto& outcome : result_.stages) {
      if (outcome.name == "dwq" && outcome.figures.contains("learning_rate")) {
        made.sizes.dwq_rate = outcome.figures.at("learning_rate").get<double>();
      }
    }
    return made;
  }

  // One that rounds, and perhaps dwq after it.
  std::vector<std::string> kept_stages() const {
    std::string rounding;
    for (const auto& outcome : result_.stages) {
      if (outcome.kept && outcome.name != "dwq") {
        rounding = outcome.name;
      }
    }
    std::vector<std::string> stages{rounding};
    if (best_ == "dwq") {
      stages.push_back(best_);
    }
    return stages;
  }

  void note_memory() {
    const auto& limit = options_.plan.memory_limit;
    if (limit && result_.peak_rss > parse_bytes(*limit, "--memory-limit")) {
      note(
          "--memory-limit was passed (" +
          std::to_string(result_.peak_rss / 1000000) +
          " MB): rounding keeps to it, costs and distillation take what they "
          "need");
    }
  }

  void write() {
    const auto source = work_->stages() / best_;
    const auto found = divergence(context(), source, mix_.report);
    result_.kl = found.reference->kl.mean.value;
    result_.perplexity = found.perplexity.value;
    result_.perplexity_reference = found.reference->perplexity.value;
    result_.top1 = found.reference->top1.value;
    result_.output = options_.output;
    result_.bytes_out = widths_->bytes;
    result_.bits_per_weight = widths_->bits_per_weight;
    result_.peak_rss = peak_rss();
    note_memory();
    result_.seconds = seconds_since(start_);
    AtomicFolder output(options_.output, options_.force);
    copy_folder(source, output.path());
    write_file(
        output.path() / "recipe.json", to_text(to_json(recipe()), 2) + "\n");
    const Presentation shown{
        context(), result_, found, options_, measured_ ? &*chooser_ : nullptr};
    result_.page = page_data(shown, source);
    write_file(output.path() / "report.html", report_page(result_.page));
    write_card(shown, output.path());
    output.commit();
    work_->remove();
  }

  fs::path folder_;
  QuantizeOptions options_;
  ProgressFn progress_;
  Clock::time_point start_;
  std::optional<Recipe> recipe_;
  Model model_;
  StageSizes sizes_;
  MixSize mix_size_;
  CalibrationMix mix_;
  std::optional<StagedWork> work_;
  std::optional<StageBudget> budget_;
  std::optional<WidthChooser> chooser_;
  std::optional<WidthPlan> widths_;
  ReferenceStates gate_;   // of the full model
  bool measured_ = false;  // widths were chosen by costs
  std::string best_;       // stage
  double best_kl_ = std::numeric_limits<double>::infinity();
  QuantizeReport result_;
};

}  // namespace

QuantizeReport quantize_model(
    const fs::path& model_folder,
    const QuantizeOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  return Run(model_folder, options, progress).run(fetch_dataset);
}

}  // namespace pennyweight
