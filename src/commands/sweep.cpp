#include "commands/sweep.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "commands/quantize/report.h"
#include "commands/quantize/stages.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_text.h"
#include "core/process.h"
#include "core/version.h"
#include "export/report_page.h"
#include "run/check_output.h"
#include "run/work/fingerprint.h"
#include "run/work/staged_work.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "sweep";
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<double> split_numbers(const std::string& text, char separator) {
  std::vector<double> numbers;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    double value = 0;
    const auto [stop, failed] =
        std::from_chars(text.data() + at, text.data() + end, value);
    if (failed != std::errc() || stop != text.data() + end) {
      return {};
    }
    numbers.push_back(value);
    at = end + 1;
  }
  return numbers;
}

std::string size_name(double bpw) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f-bpw", bpw);
  return text;
}

class Run {
 public:
  Run(const fs::path& folder,
      const SweepOptions& options,
      const ProgressFn& progress)
      : folder_(folder),
        options_(options),
        progress_(progress),
        model_(open_full_model(folder, options.plan, kWhere)),
        sizes_(parse_sizes(options.bpw)),
        stages_(stage_sizes(options.plan)) {
    // Points are of GPTQ; what comes after it takes too long for each.
    stages_.learn_steps = 0;
    stages_.dwq_sequences = 0;
    check_folders(
        kWhere, folder, options.output, options.force, true, progress);
    for (const auto& text : model_.spec.notes) {
      note(text);
    }
  }

  SweepReport run(const FetchDatasetFn& fetch) {
    const auto start = Clock::now();
    mix_ = [&] {
      TextReader reader(folder_, options_.plan.memory_limit);
      return load_mix(
          model_,
          reader,
          options_.plan.mix,
          {.fit = stages_.fit_sequences()},
          fetch,
          progress_);
    }();
    result_.data = mix_.source;
    result_.notes.insert(
        result_.notes.end(), mix_.notes.begin(), mix_.notes.end());
    work_.emplace(
        options_.output,
        WorkSettings(
            {{"method", kWhere},
             {"version", version()},
             {"options", options_to_json(options_, true)},
             {"data", fingerprint(mix_.fit) + fingerprint(mix_.gate)}},
            {{"model", identify(model_)}}),
        ResumePolicy{options_.resume, options_.force});
    for (const auto& text : work_->warnings()) {
      note(text);
    }
    const auto candidates = parse_candidates(options_.plan.candidates);
    const auto costs = work_->costs(
        model_,
        mix_.fit,
        candidates,
        stages_,
        options_.plan.mix.seed,
        progress_);
    result_.cost_seconds = work_->state().at("cost_seconds").get<double>();
    const auto widths = priced_widths(model_, candidates, costs, result_.notes);
    for (const double size : sizes_) {
      add_point(widths, size);
    }
    result_.seconds = seconds_since(start);
    result_.peak_rss = peak_rss();
    write();
    return std::move(result_);
  }

 private:
  void note(const std::string& text) {
    result_.notes.push_back(text);
    warn(progress_, kWhere, text);
  }

  void add_point(const WidthChooser& widths, double size) {
    const auto start = Clock::now();
    WidthPlan plan;
    try {
      plan = widths.choose({size, std::nullopt});
    } catch (const Error& error) {
      if (error.code() != ErrorCode::invalid_argument) {
        throw;
      }
      note(size_name(size) + " is left out: " + error.what());
      return;
    }
    SweepPoint point{
        .asked = size,
        .bits_per_weight = plan.bits_per_weight,
        .bytes = plan.bytes,
        .estimated = plan.loss};
    if (!options_.estimate) {
      measure(plan, point, start);
    }
    result_.points.push_back(point);
  }

  void
  measure(const WidthPlan& plan, SweepPoint& point, Clock::time_point start) {
    const auto name = size_name(point.asked);
    Json& done = work_->state()["points"];
    if (options_.keep && done.contains(name) &&
        !work_->holds(name, done[name].value("files", Json()))) {
      note(
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
          progress_};
      const auto output = work_->fresh_stage(name);
      run_rounding(context, stages_, "gptq", output);
      const auto found = divergence(context, output, mix_.gate, &gate_);
      done[name] = {
          {"kl", found.reference->kl.mean.value},
          {"seconds", seconds_since(start)}};
      if (options_.keep) {
        done[name]["files"] = work_->sums(name);
      } else {
        work_->drop_stage(name);
      }
      work_->save();
    }
    point.kl = done[name].at("kl").get<double>();
    point.seconds = done[name].at("seconds").get<double>();
    report(
        progress_,
        {kWhere, 0, 0, "", name + ": KL " + std::to_string(*point.kl)});
  }

  Json page() const {
    Json points = Json::array();
    for (const auto& point : result_.points) {
      points.push_back(
          {{"bits_per_weight", point.bits_per_weight},
           {"kl", point.kl.value_or(point.estimated)},
           {"label", point.kl ? "GPTQ" : "estimated"},
           {"measured", point.kl.has_value()}});
    }
    return {
        {"model", fs::path(options_.plan.model).filename().string()},
        {"output", fs::path(options_.output).filename().string()},
        {"version", version()},
        {"seconds", result_.seconds},
        {"peak_rss", result_.peak_rss},
        {"machine", machine_name()},
        {"settings", options_to_json(options_, true)},
        {"data", to_json(mix_)},
        {"frontier", points},
        {"notes", result_.notes}};
  }

  std::string csv() const {
    std::string text = "asked,bits_per_weight,bytes,estimated_kl,kl\n";
    for (const auto& point : result_.points) {
      char line[160];
      std::snprintf(
          line,
          sizeof(line),
          "%g,%.6f,%lld,%.6g,",
          point.asked,
          point.bits_per_weight,
          static_cast<long long>(point.bytes),
          point.estimated);
      text += line;
      if (point.kl) {
        std::snprintf(line, sizeof(line), "%.6g", *point.kl);
        text += line;
      }
      text += "\n";
    }
    return text;
  }

  void write() {
    result_.output = options_.output;
    AtomicFolder output(options_.output, options_.force);
    write_file(
        output.path() / "sweep.json", to_text(to_json(result_), 2) + "\n");
    write_file(output.path() / "sweep.csv", csv());
    write_file(output.path() / "report.html", report_page(page()));
    for (const auto& point : result_.points) {
      const auto name = size_name(point.asked);
      if (options_.keep && point.kl) {
        fs::create_directories(output.path() / name);
        copy_folder(work_->stages() / name, output.path() / name);
      }
    }
    output.commit();
    work_->remove();
  }

  fs::path folder_;
  const SweepOptions& options_;
  ProgressFn progress_;
  Model model_;
  std::vector<double> sizes_;
  StageSizes stages_;
  CalibrationMix mix_;
  ReferenceStates gate_;  // of the full model
  std::optional<StagedWork> work_;
  SweepReport result_;
};

}  // namespace

std::vector<double> parse_sizes(const std::string& text) {
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
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--bpw '" + one_line(text, 60) +
            "' is neither first:last:step, such as 2.5:6:0.25, nor a list of "
            "bits a weight above 0 and at most 32 (200 of them at most)");
  }
  return sizes;
}

Json to_json(const SweepReport& report) {
  Json points = Json::array();
  for (const auto& point : report.points) {
    points.push_back(
        {{"asked", point.asked},
         {"bits_per_weight", point.bits_per_weight},
         {"bytes", point.bytes},
         {"estimated_kl", point.estimated},
         {"kl", point.kl ? Json(*point.kl) : Json()},
         {"seconds", point.seconds}});
  }
  return {
      {"output", report.output},
      {"data", report.data},
      {"points", points},
      {"cost_seconds", report.cost_seconds},
      {"seconds", report.seconds},
      {"peak_rss", report.peak_rss},
      {"notes", report.notes}};
}

SweepReport sweep(
    const fs::path& model_folder,
    const SweepOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  return Run(model_folder, options, progress).run(fetch_dataset);
}

}  // namespace pennyweight
