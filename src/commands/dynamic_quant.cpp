#include <algorithm>
#include <cmath>

#include "commands/command.h"
#include "commands/dynamic_quant_options.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/files/output_file.h"
#include "core/json.h"
#include "core/text.h"
#include "eval/evaluate.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "method/registry.h"
#include "method/widths/sensitivity_file.h"
#include "run/method_run.h"
#include "run/width_plan.h"

namespace pennyweight {

namespace {

constexpr const char* kSensitivities = "sensitivities.json";

bool is_inside(const fs::path& path, const fs::path& folder) {
  std::error_code ignored;
  const auto inner = fs::weakly_canonical(whole_path(path), ignored);
  const auto tables = fs::weakly_canonical(whole_path(folder), ignored);
  return std::ranges::mismatch(tables, inner).in1 == tables.end();
}

std::vector<Candidate> list_candidates(const DynamicQuantOptions& options) {
  if (options.candidates) {
    return parse_candidates(*options.candidates);
  }
  return {
      make_quant_spec("affine", options.low_bits, options.low_group_size),
      make_quant_spec("affine", options.high_bits, options.high_group_size)};
}

class DynamicQuant {
 public:
  DynamicQuant(Session& session, const DynamicQuantOptions& options)
      : session_(session),
        folder_(session.model_folder(options.model)),
        options_(options),
        low_(make_quant_spec(
            "affine",
            options.low_bits,
            options.low_group_size)),
        model_(open_source(folder_, options.assume_family, session.progress())),
        candidates_(list_candidates(options)),
        target_(size_target(
            options.target_bpw,
            options.target_size,
            session.command())),
        wishes_(wishes(session, model_, options, low_)),
        widths_(model_, candidates_, wishes_) {
    if (model_.is_rounded()) {
      session.refuse(
          model_.checkpoint.folder().string() +
          " is quantized already; start from the full-precision model");
    }
    session.check_folders(folder_, options);
    check_target();
    if (options.sensitivities_out) {
      if (options.sensitivities) {
        session_.refuse(
            "--sensitivities-out is for what is measured, and --sensitivities "
            "measures nothing; leave one out");
      }
      // Written when it is measured, it would go with a folder that is
      // replaced.
      if (is_inside(*options.sensitivities_out, options.mlx_path)) {
        session_.refuse(
            "--sensitivities-out " + *options.sensitivities_out +
            " lies in the output folder; leave it out, and they go there");
      }
      file_.emplace(
          *options.sensitivities_out, options.force, "--sensitivities-out");
    }
    session.describe_input(model_);
  }

  void run() {
    auto& report = session_.report();
    TokenData data;
    if (!options_.sensitivities || options_.report_ppl ||
        !options_.then.empty()) {
      data = load();
    }
    if (options_.sensitivities) {
      read(*options_.sensitivities);
    } else {
      measure(data);
    }
    const auto plan = choose();
    if (options_.then.empty()) {
      write(plan);
    } else {
      round_by_method(plan, data);
    }
    if (options_.report_ppl) {
      const double before = perplexity(model_, data);
      const double after = perplexity(open_model(options_.mlx_path), data);
      report.figures["perplexity_before"] = before;
      report.figures["perplexity"] = after;
      report.text +=
          "perplexity " + fixed(before, 3) + " -> " + fixed(after, 3) + "\n";
    }
  }

 private:
  static WidthWishes wishes(
      Session& session,
      const Model& model,
      const DynamicQuantOptions& options,
      const QuantSpec& low) {
    WidthWishes wishes;
    wishes.common = low;
    wishes.pins = PinnedWidths(
        model,
        options.pins,
        {.where = session.command(), .common = low, .affine = true});
    wishes.prefer_active = strength_of(options.active, session.command());
    session.note(wishes.pins.notes());
    return wishes;
  }

  // Found out now, not when everything has been measured.
  void check_target() {
    WidthChooser widths(model_, candidates_, wishes_);
    for (const auto& module : list_stored_modules(model_.spec)) {
      widths.add(module, std::vector<double>(candidates_.size(), 0.0));
    }
    widths.choose(target_);
    if (const auto text = widths.about_largest(target_); !text.empty()) {
      session_.note(text + "; that is what is made");
    }
  }

  TokenData load() {
    auto data = session_.read_text(folder_, model_, options_.data);
    session_.report().figures["tokens"] = data.tokens;
    return data;
  }

  void measure(const TokenData& data) {
    const double start = session_.seconds();
    SensitivitySettings settings{
        .low = low_,
        .candidates = candidates_,
        .scratch_folder = scratch_folder()};
    if (options_.batch_size < 0) {
      session_.refuse("--batch-size is negative");
    }
    if (options_.batch_size > 0) {
      settings.batch_tokens =
          int64_t{options_.batch_size} * options_.data.sequence_length;
    }
    ops::keep_freed_memory();
    const auto measured = measure_sensitivities(
        model_, data.sequences, settings, session_.progress());
    auto& report = session_.report();
    report.figures["low_kl"] = measured.loss;
    report.figures["pass_seconds"] = session_.seconds() - start;
    for (const auto& module : list_stored_modules(model_.spec)) {
      add(module, module_losses(measured, module));
    }
    const auto text =
        file().text(measured, low_, list_stored_modules(model_.spec));
    if (file_) {
      report.figures["sensitivities"] = *options_.sensitivities_out;
      file_->write(text);
    } else {
      report.figures["sensitivities"] =
          (fs::path(options_.mlx_path) / kSensitivities).string();
      measured_ = text;
    }
    report.text += "data: " + shown(report.data) + "; " +
        std::to_string(data.tokens) +
        " tokens; KL with all modules at the low width " +
        fixed(measured.loss, 4) + "\nsensitivities written to " +
        shown(report.figures["sensitivities"].get<std::string>()) + "\n";
  }

  fs::path scratch_folder() const {
    const auto parent = fs::absolute(options_.mlx_path).parent_path();
    return parent.empty() ? fs::path(".") : parent;
  }

  SensitivityFile file() const {
    return {candidates_, options_.candidates.has_value()};
  }

  void read(const std::string& name) {
    session_.report().figures["sensitivities"] = name;
    const auto modules = list_stored_modules(model_.spec);
    const auto losses = file().read(name, modules);
    for (size_t i = 0; i < modules.size(); ++i) {
      add(modules[i], losses[i]);
    }
  }

  void add(const ModuleSpec& module, const ModuleLosses& found) {
    sensitivities_[module.path] = found.sensitivity;
    if (const auto text = widths_.add(module, found.losses)) {
      session_.note(*text);
    }
  }

  QuantPlan choose() {
    const auto chosen = widths_.choose(target_);
    Json modules = Json::array();
    std::map<std::string, int> counts;
    for (const auto& own : chosen.modules) {
      const auto& path = own.module.path;
      modules.push_back(
          {{"path", path},
           {"quantization", own.spec ? to_json(*own.spec) : Json(false)},
           {"sensitivity", sensitivities_.at(path)},
           {"estimated_loss", own.loss}});
      if (!own.said.empty()) {
        modules.back()["pinned"] = own.said;
      }
      if (own.module.published) {
        modules.back()["published"] = true;
      }
      ++counts
          [own.module.published ? "published packed"
               : own.spec       ? std::to_string(own.spec->bits) +
                   " bits, groups of " + std::to_string(own.spec->group_size)
                          : "unquantized"];
    }
    auto& report = session_.report();
    report.figures["modules"] = std::move(modules);
    report.figures["pins"] = wishes_.pins.json();
    report.figures["bytes_read"] = chosen.bytes_read;
    report.text += wishes_.pins.text() +
        "bytes of weights read a token: " + human_bytes(chosen.bytes_read) +
        "\nmodules by width: ";
    for (const auto& [name, count] : counts) {
      report.text += (name == counts.begin()->first ? "" : "; ") + name + ": " +
          std::to_string(count);
    }
    report.text += "\n";
    return chosen.plan;
  }

  void write(const QuantPlan& plan) {
    AtomicFolder output(options_.mlx_path, options_.force);
    ConversionSettings settings;
    settings.dtype = output_dtype(model_);
    settings.plan = plan;
    settings.mtp = !options_.drop_mtp;
    auto written = write_model(
        model_,
        Conversion(model_, settings),
        output.path(),
        options_.model,
        std::string(
            "Mixed widths by sensitivity, rounded to nearest, at %bpw bits a "
            "weight, scales included.") +
            wishes_.pins.sentence(),
        session_.command(),
        session_.progress());
    if (measured_) {
      write_file(output.path() / kSensitivities, *measured_);
    }
    output.commit();
    session_.describe_output(options_.mlx_path, written);
  }

  // A run of its own, with a work folder that it may be gone on with from.
  void round_by_method(const QuantPlan& plan, const TokenData& data) {
    WalkOptions walk;
    walk.model = options_.model;
    walk.mlx_path = options_.mlx_path;
    walk.data = options_.data;
    walk.assume_family = options_.assume_family;
    walk.batch_size = options_.batch_size;
    walk.force = options_.force;
    const auto& entry = find_method(options_.then);
    const ProcessGroup alone;
    Session session(session_.command(), session_.progress(), alone);
    MethodRun run(session, model_, folder_, walk);
    run.calibrate(plan, split_held_out(data.sequences, true), data.source);
    run.add_to_card(wishes_.pins.sentence());
    const auto method = entry.settings()->make(!run.note_unchecked());
    if (measured_) {
      run.add_file(kSensitivities, *measured_);
    }
    auto settings = options_to_json(options_, true);
    settings["plan"] = to_json(plan);
    run.run(*method, settings, "Mixed widths by sensitivity, " + entry.title);
    const auto& made = session.finish();
    auto& report = session_.report();
    report.figures["then"] = to_json(made);
    report.output = made.output;
    report.bytes_out = made.bytes_out;
    report.bits_per_weight = made.bits_per_weight;
    report.notes.insert(
        report.notes.end(), made.notes.begin(), made.notes.end());
  }

  double perplexity(const Model& model, const TokenData& data) const {
    std::vector<ScoredSequence> sequences;
    for (const auto& sequence : data.sequences) {
      sequences.push_back({sequence});
    }
    return evaluate(model, nullptr, sequences, {}, session_.progress())
        .perplexity.value;
  }

  Session& session_;
  fs::path folder_;
  const DynamicQuantOptions& options_;
  QuantSpec low_;
  Model model_;
  std::vector<Candidate> candidates_;
  SizeTarget target_;
  WidthWishes wishes_;
  WidthChooser widths_;
  std::map<std::string, double> sensitivities_;
  std::optional<OutputFile> file_;       // for what is measured
  std::optional<std::string> measured_;  // that goes into the output folder
};

/// Measures what rounding each module costs (measure_sensitivities), or reads
/// it, then gives each the width by which the least is lost within the target,
/// rounds to nearest, or as options.then says, and writes options.mlx_path.
/// Sensitivities that were measured go to options.sensitivities_out, else to
/// sensitivities.json in the output folder: mlx-lm's own pairs without
/// --candidates, else an object with all figures. mlx-lm writes them to the
/// current folder, where nobody asked for them. Errors as convert's,
/// load_data's and OutputFile's; invalid_argument for a target that the
/// candidates can't meet, which is found before anything is measured.
RunReport run(Session& session, const DynamicQuantOptions& options) {
  session.require_one_process();
  if (options.grad_checkpoint) {
    session.note(kGradCheckpointNote);
  }
  if (options.accumulation_dtype != "float32") {
    session.note(
        "--accumulation-dtype changes nothing: gradients are always summed in "
        "float32");
  }
  DynamicQuant(session, options).run();
  return session.finish();
}

}  // namespace

Command dynamic_quant_command() {
  return make_command<DynamicQuantOptions>(
      "dynamic-quant",
      "Quantize to a size by widths chosen from each module's sensitivity",
      "  pennyweight dynamic-quant --model Qwen/Qwen3-0.6B --mlx-path out "
      "--target-bpw 4.75\n"
      "  pennyweight dynamic-quant --model folder --mlx-path out --target-size "
      "400MB\n    --candidates 3:64,4:64,4:32,5:64,6:64,8:64,bf16 --then "
      "gptq\n",
      run);
}

}  // namespace pennyweight
