#include <algorithm>
#include <cmath>

#include "commands/command.h"
#include "commands/quantize/report.h"
#include "commands/quantize/stages.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "core/json_text.h"
#include "core/text.h"
#include "core/version.h"
#include "export/report_page.h"
#include "run/work/fingerprint.h"
#include "run/work/staged_work.h"

namespace pennyweight {

namespace {

struct SweepOptions : OutputOptions, ResumeOptions {
  PlanOptions plan;
  std::string bpw = "2.5:6:0.5";
  bool estimate = false;
  bool keep = false;

  SweepOptions() {
    plan.effort = "fast";
    mlx_path = "sweep";
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    PlanOptions::visit(self.plan, option);
    OutputOptions::visit(self, option);
    ResumeOptions::visit(self, option);
    option(
        {.name = "bpw",
         .help = "Bits a weight: first:last:step, or a list such as 3,4,4.5"},
        self.bpw);
    option(
        {.name = "estimate",
         .help = "Only estimate each KL; models are not made"},
        self.estimate);
    option(
        {.name = "keep-models",
         .help = "Keep the model of each size in the output folder"},
        self.keep);
  }
};

struct SweepPoint {
  double asked = 0;
  double bits_per_weight = 0;
  int64_t bytes = 0;
  double bytes_read = 0;       // by a token
  double estimated = 0;        // KL, by costs
  std::optional<double> kl{};  // on the validation text, rounded by GPTQ
  double seconds = 0;
};

std::vector<double> split_numbers(const std::string& text, char separator) {
  std::vector<double> numbers;
  for (const auto& part : cut(text, separator)) {
    const auto value = number_in<double>(part);
    if (!value) {
      return {};
    }
    numbers.push_back(*value);
  }
  return numbers;
}

std::string size_name(double bpw) {
  return fixed(bpw, 3) + "-bpw";
}

/// "2.5:6:0.25" or "3,4,4.5" to sizes; invalid_argument for anything else,
/// for more than 200 of them, and for what is not above 0 and at most 32.
std::vector<double> parse_sizes(
    const Session& session,
    const std::string& text) {
  constexpr double kMost = 32;
  constexpr size_t kMostSizes = 200;
  std::vector<double> sizes = split_numbers(text, ',');
  if (const auto range = split_numbers(text, ':'); range.size() == 3) {
    sizes.clear();
    for (double size = range[0];
         range[2] > 0 && size <= range[1] + 1e-9 && sizes.size() <= kMostSizes;
         size = range[0] + range[2] * double(sizes.size())) {
      sizes.push_back(size);
    }
  }
  const bool good = !sizes.empty() && sizes.size() <= kMostSizes &&
      std::ranges::all_of(
          sizes, [](double size) { return size > 0 && size <= kMost; });
  if (!good) {
    session.refuse(
        "--bpw '" + one_line(text, 60) +
        "' is neither first:last:step, such as 2.5:6:0.25, nor a list of "
        "bits a weight above 0 and at most 32 (200 of them at most)");
  }
  return sizes;
}

class Sweep {
 public:
  Sweep(Session& session, const SweepOptions& options)
      : session_(session),
        folder_(session.model_folder(options.plan.model)),
        options_(options),
        model_(open_full_model(session, folder_, options.plan)),
        sizes_(parse_sizes(session, options.bpw)),
        stages_(stage_sizes(options.plan)),
        wishes_(width_wishes(session, model_, options.plan)) {
    // Points are of GPTQ; what comes after it takes too long for each.
    stages_.learn_steps = 0;
    stages_.dwq_sequences = 0;
    session.check_folders(folder_, options);
    session.describe_packing(model_);
    session.note(model_.spec.notes);
    check_sizes();
  }

  void run() {
    load();
    work_.emplace(
        options_.mlx_path,
        WorkSettings(
            {{"method", session_.command()},
             {"version", version()},
             {"options", options_to_json(options_, true)},
             {"data", fingerprint(mix_.fit) + fingerprint(mix_.gate)}},
            {{"model", identify(model_)}}),
        ResumePolicy{options_.resume, options_.force});
    session_.note(work_->warnings());
    const auto all = candidates();
    const auto costs = work_->costs(
        model_,
        mix_.fit,
        all,
        stages_,
        options_.plan.mix.seed,
        session_.progress());
    const auto widths =
        priced_widths(model_, all, costs, session_.report().notes, wishes_);
    for (const double size : sizes_) {
      add_point(widths, size);
    }
    write();
  }

 private:
  std::vector<Candidate> candidates() const {
    return with_pinned(
        parse_candidates(options_.plan.candidates), wishes_.pins);
  }

  // Where none can be met there is nothing to measure.
  void check_sizes() const {
    std::vector<std::string> notes;
    const auto widths = priced_widths(model_, candidates(), {}, notes, wishes_);
    for (size_t i = 0; i < sizes_.size(); ++i) {
      try {
        choose_size(widths, {sizes_[i], std::nullopt}, session_);
        return;
      } catch (const Error& error) {
        if (error.code() != ErrorCode::invalid_argument ||
            i + 1 == sizes_.size()) {
          throw;
        }
      }
    }
  }

  void load() {
    mix_ = session_.read_mix(
        folder_,
        model_,
        options_.plan.mix,
        {.fit = stages_.fit_sequences()},
        options_.plan.memory_limit);
  }

  void add_point(const WidthChooser& widths, double size) {
    const double start = session_.seconds();
    WidthPlan plan;
    try {
      plan = choose_size(widths, {size, std::nullopt}, session_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::invalid_argument) {
        throw;
      }
      session_.note(size_name(size) + " is left out: " + error.what());
      return;
    }
    SweepPoint point{
        .asked = size,
        .bits_per_weight = plan.bits_per_weight,
        .bytes = plan.bytes,
        .bytes_read = plan.bytes_read,
        .estimated = plan.loss};
    if (!options_.estimate) {
      measure(plan, point, start);
    }
    points_.push_back(point);
  }

  void measure(const WidthPlan& plan, SweepPoint& point, double start) {
    const auto name = size_name(point.asked);
    Json& done = work_->state()["points"];
    if (options_.keep && done.contains(name) &&
        !work_->holds(name, done[name].value("files", Json()))) {
      session_.note(
          (work_->stages() / name).string() +
          " is not as the unfinished run left it: it is made again");
      done.erase(name);
    }
    if (!done.contains(name)) {
      const StageContext context{
          model_,
          folder_,
          options_.plan,
          mix_,
          plan,
          work_->stages(),
          session_.progress()};
      const auto output = work_->fresh_stage(name);
      run_rounding(context, stages_, gptq_, output);
      const auto found = divergence(context, output, mix_.gate, &gate_);
      done[name] = {
          {"kl", found.reference->kl.mean.value},
          {"seconds", session_.seconds() - start}};
      if (options_.keep) {
        done[name]["files"] = work_->sums(name);
      } else {
        work_->drop_stage(name);
      }
      work_->save();
    }
    point.kl = done[name].at("kl").get<double>();
    point.seconds = done[name].at("seconds").get<double>();
    session_.say(name + ": KL " + std::to_string(*point.kl));
  }

  Json page() const {
    Json points = Json::array();
    for (const auto& point : points_) {
      points.push_back(
          {{"bits_per_weight", point.bits_per_weight},
           {"kl", point.kl.value_or(point.estimated)},
           {"label", point.kl ? "GPTQ" : "estimated"},
           {"measured", point.kl.has_value()}});
    }
    return {
        {"model", fs::path(options_.plan.model).filename().string()},
        {"output", fs::path(options_.mlx_path).filename().string()},
        {"version", version()},
        {"seconds", session_.report().seconds},
        {"peak_rss", session_.report().peak_rss},
        {"machine", machine_name()},
        {"settings", options_to_json(options_, true)},
        {"data", to_json(mix_)},
        {"frontier", points},
        {"pins", wishes_.pins.json()},
        {"notes", session_.report().notes}};
  }

  std::string csv() const {
    std::string text = "asked,bits_per_weight,bytes,estimated_kl,kl\n";
    for (const auto& point : points_) {
      text += formatted("%g,%.6f,", point.asked, point.bits_per_weight) +
          std::to_string(point.bytes) + formatted(",%.6g,", point.estimated) +
          (point.kl ? formatted("%.6g", *point.kl) : "") + "\n";
    }
    return text;
  }

  void describe() {
    auto& report = session_.report();
    const double cost_seconds = work_->state().at("cost_seconds");
    Json points = Json::array();
    std::vector<std::vector<std::string>> rows{
        {"bits a weight", "size", "read a token", "estimated KL", "KL"}};
    for (const auto& point : points_) {
      points.push_back(
          {{"asked", point.asked},
           {"bits_per_weight", point.bits_per_weight},
           {"bytes", point.bytes},
           {"bytes_read", point.bytes_read},
           {"estimated_kl", point.estimated},
           {"kl", point.kl ? Json(*point.kl) : Json()},
           {"seconds", point.seconds}});
      rows.push_back(
          {fixed(point.bits_per_weight, 3),
           human_bytes(double(point.bytes)),
           human_bytes(point.bytes_read),
           fixed(point.estimated, 4),
           point.kl ? fixed(*point.kl, 4) : "-"});
    }
    report.output = options_.mlx_path;
    report.figures = {
        {"points", points},
        {"pins", wishes_.pins.json()},
        {"cost_seconds", cost_seconds}};
    report.text = wishes_.pins.text() + table(rows) + "costs took " +
        fixed(cost_seconds, 1) + " s\n";
  }

  void write() {
    describe();
    const auto json = to_json(session_.finish());
    AtomicFolder output(options_.mlx_path, options_.force);
    write_file(output.path() / "sweep.json", to_text(json, 2) + "\n");
    write_file(output.path() / "sweep.csv", csv());
    write_file(output.path() / "report.html", report_page(page()));
    for (const auto& point : points_) {
      const auto name = size_name(point.asked);
      if (options_.keep && point.kl) {
        fs::create_directories(output.path() / name);
        copy_folder(work_->stages() / name, output.path() / name);
      }
    }
    output.commit();
    work_->remove();
  }

  Session& session_;
  fs::path folder_;
  const SweepOptions& options_;
  Model model_;
  std::vector<double> sizes_;
  StageSizes stages_;
  WidthWishes wishes_;
  ChainStage gptq_ = make_chain({stage::kGptq}, "sweep").front();
  CalibrationMix mix_;
  ReferenceStates gate_;  // of the full model
  std::optional<StagedWork> work_;
  std::vector<SweepPoint> points_;
};

/// The frontier of size against KL: widths chosen from one table of costs for
/// each size, rounded by GPTQ and measured. Sizes below what the candidates
/// allow are left out, with a note.
RunReport run(Session& session, const SweepOptions& options) {
  session.require_one_process();
  Sweep(session, options).run();
  return session.finish();
}

}  // namespace

Command sweep_command() {
  return make_command<SweepOptions>(
      "sweep",
      "Measure the frontier of size against KL, widths chosen for each size",
      "  pennyweight sweep Qwen/Qwen3-0.6B --bpw 2.5:6:0.25 -o sweep\n"
      "  pennyweight sweep folder --bpw 3,4,5 --estimate -o estimates\n",
      run);
}

}  // namespace pennyweight
