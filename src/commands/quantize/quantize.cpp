#include "commands/quantize/quantize.h"

#include <chrono>

#include "commands/command.h"
#include "commands/quantize/report.h"
#include "commands/quantize/stage_runner.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "core/json_text.h"
#include "core/process.h"
#include "core/text.h"
#include "core/version.h"
#include "export/mtp.h"
#include "export/report_page.h"
#include "kernels/dispatch.h"
#include "run/memory_plan.h"
#include "run/recipe.h"
#include "run/time/stage_budget.h"
#include "run/work/fingerprint.h"
#include "run/work/staged_work.h"

namespace pennyweight {

namespace {

using Clock = std::chrono::steady_clock;

class Quantization {
 public:
  Quantization(Session& session, const QuantizeOptions& options)
      : session_(session),
        folder_(session.model_folder(options.plan.model)),
        options_(options),
        recipe_(
            options.recipe ? std::optional(read_recipe(*options.recipe))
                           : std::nullopt),
        model_(open_full_model(
            session,
            folder_,
            assumed(),
            options.stream ? session.shards_of(options.plan.model) : nullptr)),
        sizes_(recipe_ ? recipe_->sizes : stage_sizes(options.plan)),
        chain_(chain()) {
    if (recipe_) {
      refuse_beside_recipe(session, options);
    } else {
      wishes_ = width_wishes(session, model_, options.plan);
      check_target();
    }
    if (options.plan.mix.seed > 0xffffffff) {
      session.refuse("--seed has to be below 2^32");
    }
    if (options.time_limit) {
      parse_seconds(*options.time_limit, "--time-limit");
    }
    session.check_folders(folder_, options);
    session.describe_input(model_);
    if (options.stream) {
      adapt_to_stream();
    }
    if (recipe_) {
      adopt(*recipe_);
    }
  }

  void run() {
    load();
    open_work();
    if (options_.time_limit && !recipe_) {
      budget_.emplace(
          TimeLimit(
              model_,
              mix_.sequence_length,
              measure_rates(model_, mix_.sequence_length, session_.progress()),
              parse_seconds(*options_.time_limit, "--time-limit")),
          start_,
          *work_,
          [this](const std::string& text) { session_.note(text); });
    }
    plan_widths();
    adapt_to_widths();
    const StageContext context{
        model_,
        folder_,
        options_.plan,
        mix_,
        *widths_,
        work_->stages(),
        session_.progress()};
    StageRunner stages(
        session_,
        context,
        *work_,
        budget_ ? &*budget_ : nullptr,
        recipe_.has_value());
    stages.run(chain_, sizes_);
    write(context, stages);
  }

 private:
  std::vector<ChainStage> chain() const {
    if (recipe_) {
      return make_chain(recipe_->stages, *options_.recipe);
    }
    return options_.stages
        ? make_chain(split(*options_.stages, ','), "--stages")
        : default_chain();
  }

  // Found out now, not when costs have been measured.
  void check_target() {
    const auto all = candidates();
    std::vector<std::string> notes;
    const auto& target = options_.target;
    const auto widths = priced_widths(model_, all, {}, notes, wishes_);
    const auto plan =
        choose_widths(widths, model_, all, target, wishes_.pins, session_);
    // Without costs the least widths are chosen, and not what fills a size.
    planned_bytes_ = has_choice(target)
        ? widths.bytes_asked(size_target(
              target.target_bpw, target.target_size, session_.command()))
        : plan.bytes;
  }

  std::vector<Candidate> candidates() const {
    return list_candidates(
        model_, options_.plan, options_.target, wishes_.pins);
  }

  // Distillation runs the full model again for each measure, all of whose files
  // would come anew.
  void adapt_to_stream() {
    if (!recipe_ && !options_.plan.dwq_samples && sizes_.dwq_sequences > 0) {
      sizes_.dwq_sequences = 0;
      session_.note(
          "--stream leaves distillation out, for which all files would come "
          "again and again; --dwq-samples asks for it");
    }
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
      session_.refuse(
          *options_.recipe + " is of another model (" + recipe.model +
          "); quantize that, or leave out --recipe");
    }
    if (!is_comparable(recipe.model_fingerprint)) {
      session_.note(
          *options_.recipe +
          " is older than the way models and texts are told apart now: "
          "whether these are the recipe's is not known");
    }
    widths_ = recipe_widths(model_, recipe);
    options_.plan.pins = recipe.pins;
    wishes_ = width_wishes(session_, model_, options_.plan);
    wishes_.pins.require_kept(widths_->plan, *options_.recipe);
    for (const auto& text : differences(recipe, *options_.recipe, version())) {
      session_.note(text);
    }
  }

  void load() {
    mix_size_ = recipe_ ? recipe_->mix_size
                        : MixSize{
                              .fit = sizes_.fit_sequences(),
                              .gate = sizes_.gate_sequences,
                              .report = sizes_.report_sequences};
    mix_ = session_.read_mix(
        folder_,
        model_,
        options_.plan.mix,
        mix_size_,
        options_.plan.memory_limit);
    if (recipe_ && is_comparable(recipe_->model_fingerprint) &&
        recipe_->mix_fingerprint != mix_fingerprint()) {
      session_.note(
          "the text is not the recipe's, so the result will be another; give "
          "--data-path if it lies elsewhere now");
    }
  }

  std::string mix_fingerprint() const {
    return fingerprint(mix_.fit) + fingerprint(mix_.gate);
  }

  void open_work() {
    Json settings{
        {"method", session_.command()},
        {"version", version()},
        {"options", options_to_json(options_, true)},
        {"data", mix_fingerprint()}};
    if (recipe_) {
      settings["recipe"] = to_json(*recipe_);
    }
    work_.emplace(
        options_.mlx_path,
        WorkSettings(settings, {{"model", identify(model_)}}),
        ResumePolicy{options_.resume, options_.force});
    session_.note(work_->warnings());
    if (!work_->resumed()) {
      require_room();
    }
    for (const auto& name : drop_damaged_stages(*work_, recipe_.has_value())) {
      session_.note(
          (work_->stages() / name).string() +
          " is not as the unfinished run left it: it is made again");
    }
    if (work_->resumed()) {
      session_.say("going on with an unfinished run");
    } else if (recipe_) {
      work_->save();  // stages go on too, and nothing is measured before them
    }
  }

  // For what a stage has finished, its output, and that of the best before.
  void require_room() {
    const int64_t copies = chain_.size() > 1 ? 3 : 2;
    try {
      require_disk(
          copies * (widths_ ? widths_->bytes : planned_bytes_),
          work_->stages().parent_path().parent_path(),
          "a stage's finished blocks and output, and the best one before it");
    } catch (const Error&) {
      work_->remove();
      throw;
    }
  }

  void plan_widths() {
    if (recipe_) {
      return;
    }
    const auto all = candidates();
    measured_ = has_choice(options_.target) && all.size() > 1;
    if (budget_ && measured_) {
      budget_->fit_costs(sizes_);
    }
    const auto costs = measured_ ? work_->costs(
                                       model_,
                                       mix_.fit,
                                       all,
                                       sizes_,
                                       options_.plan.mix.seed,
                                       session_.progress())
                                 : RoundingCosts{};
    std::vector<std::string> notes;
    chooser_.emplace(priced_widths(model_, all, costs, notes, wishes_));
    session_.note(notes);
    widths_ = choose_widths(
        *chooser_, model_, all, options_.target, wishes_.pins, session_);
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

  Recipe recipe(const StageRunner& stages) const {
    Recipe made;
    made.version = version();
    made.kernels = kernels::kernel_kind();
    made.model = options_.plan.model;
    made.model_fingerprint = fingerprint(model_);
    made.assume_family = options_.plan.assume_family;
    made.mix = options_.plan.mix;
    made.mix_size = mix_size_;
    made.mix_fingerprint = mix_fingerprint();
    made.pins = options_.plan.pins;
    made.target =
        recipe_ ? recipe_->target : options_to_json(options_.target, true);
    for (const auto& own : widths_->modules) {
      made.widths[own.module.path] = own.spec;
    }
    made.stages = stages.kept();
    made.sizes = sizes_;
    for (const auto& outcome : stages.outcomes()) {
      if (outcome.figures.contains("learning_rate")) {
        made.sizes.dwq_rate = outcome.figures.at("learning_rate").get<double>();
      }
    }
    return made;
  }

  void note_memory() {
    const auto& limit = options_.plan.memory_limit;
    if (limit && peak_rss() > parse_bytes(*limit, "--memory-limit")) {
      session_.note(
          "--memory-limit was passed (" + std::to_string(peak_rss() / 1000000) +
          " MB): rounding keeps to it, costs and distillation take what they "
          "need");
    }
  }

  void write(const StageContext& context, const StageRunner& stages) {
    const auto source = stages.best();
    const auto found = divergence(context, source, mix_.report);
    auto& report = session_.report();
    report.output = options_.mlx_path;
    report.bytes_out = widths_->bytes;
    report.bits_per_weight = widths_->bits_per_weight;
    note_memory();
    session_.finish();
    AtomicFolder output(options_.mlx_path, options_.force);
    copy_folder(source, output.path());
    if (!options_.drop_mtp) {
      report.mtp = carry_mtp(model_, output.path());
    }
    write_file(
        output.path() / "recipe.json",
        to_text(to_json(recipe(stages)), 2) + "\n");
    const Presentation shown{
        context,
        report,
        stages.outcomes(),
        found,
        options_,
        wishes_.pins,
        measured_ ? &*chooser_ : nullptr};
    const auto page = page_data(shown, source);
    write_file(output.path() / "report.html", report_page(page));
    write_card(shown, output.path());
    report.figures = result_figures(shown, page);
    report.text = result_text(shown);
    output.commit();
    work_->remove();
  }

  Session& session_;
  fs::path folder_;
  QuantizeOptions options_;
  Clock::time_point start_ = Clock::now();
  std::optional<Recipe> recipe_;
  Model model_;
  StageSizes sizes_;
  std::vector<ChainStage> chain_;
  MixSize mix_size_;
  CalibrationMix mix_;
  std::optional<StagedWork> work_;
  std::optional<StageBudget> budget_;
  WidthWishes wishes_;
  std::optional<WidthChooser> chooser_;
  std::optional<WidthPlan> widths_;
  int64_t planned_bytes_ = 0;  // of the output, before widths are chosen
  bool measured_ = false;      // widths were chosen by costs
};

/// Chooses each module's width for the size asked for, then rounds: by GPTQ,
/// by learning the rounding of blocks with few bits, and by distilling scales
/// and biases. Each stage is kept only where the KL to the full model falls on
/// text that it was not fitted to. Writes the output with recipe.json,
/// report.html and a model card.
RunReport run(Session& session, const QuantizeOptions& options) {
  session.require_one_process();
  Quantization(session, options).run();
  // The peak is that of the work: how the models go on, for the page, is made
  // with all of their mapped weights.
  session.report().seconds = session.seconds();
  return session.report();
}

}  // namespace

Command quantize_command() {
  return make_command<QuantizeOptions>(
      "quantize",
      "Make the best model of a given size: widths and methods chosen for you",
      "  pennyweight quantize Qwen/Qwen3-0.6B -o qwen3-45 --target-bpw 4.5\n"
      "  pennyweight quantize folder -o out --target-size 400MB --effort best "
      "--time-limit 1h\n"
      "  pennyweight quantize folder -o again --recipe out/recipe.json\n",
      run);
}

}  // namespace pennyweight
