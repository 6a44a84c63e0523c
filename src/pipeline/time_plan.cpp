// Estimates count the operations of matrix products, by stage, and divide by
// what the machine does; the shares that stages reach of that rate were
// measured (docs/performance.md).
#include "pipeline/time_plan.h"

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include "core/bytes.h"
#include "core/error.h"
#include "kernels/threads.h"
#include "method/gptq_stage.h"
#include "method/learned_stage.h"
#include "pipeline/dwq.h"
#include "pipeline/dwq_train.h"
#include "pipeline/memory_plan.h"

namespace pennyweight {

namespace {

using Clock = std::chrono::steady_clock;

// Shares of the rate that a stage's products reach, all else that goes with
// tokens counted in.
constexpr double kCostShare = 0.7;
constexpr double kGptqShare = 0.6;
constexpr double kLearnShare = 0.7;
constexpr double kDwqShare = 0.6;
// Measures on held-out text, in times of the steps.
constexpr double kDwqMeasures = 1.1;
constexpr double kEvaluateShare = 0.75;
// GPTQ of a weight, with grids, refit, descent and the gate; no matter of the
// matmul's rate. Costs round to three widths, without the last three.
constexpr double kRoundSeconds = 2e-7;  // on one core
constexpr double kCostRoundSeconds = 4e-7;
constexpr double kLearnTokens = 4096;
// A block in which folding is tried, in times of one in which it is not.
constexpr double kFoldTries = 2.5;

/// Weights that a token goes through.
struct Weights {
  double blocks = 0;
  double head = 0;
  double all_blocks = 0;  // of experts all
  double squares = 0;     // sum over what linears read of width^2
};

Weights count_weights(const Model& model) {
  Weights sum;
  std::string input;
  for (const ModuleSpec& module : list_modules(model.spec)) {
    const double own = double(module.out) * double(module.in);
    if (module.block < 0) {
      const bool head = module.tied || module.kind == ModuleSpec::Kind::head;
      sum.head += head ? own : 0;
      continue;
    }
    sum.all_blocks += own;
    double share = 1;
    if (module.expert) {
      const auto& block = model.spec.blocks[static_cast<size_t>(module.block)];
      share = double(block.moe->chosen) /
          double(std::max<int64_t>(1, module.count));
    }
    sum.blocks += share * own;
    if (module.input_id != input) {
      sum.squares += share * double(module.in) * double(module.in);
      input = module.input_id;
    }
  }
  return sum;
}

const ModuleSpec& largest_linear(const std::vector<ModuleSpec>& modules) {
  return *std::ranges::max_element(modules, {}, [](const ModuleSpec& module) {
    return module.block < 0 ? 0 : module.out * module.in;
  });
}

/// Sequences that distillation goes through in whole steps, those that choose
/// the rate counted in.
double trained_sequences(const StageSizes& sizes) {
  const int64_t batch = DwqOptions().batch_size;
  const int64_t sequences = int64_t{sizes.dwq_sequences} * sizes.dwq_epochs;
  const int64_t steps = (sequences + batch - 1) / batch;
  return double(
      batch * (steps + (sizes.dwq_rate ? 0 : rate_trial_steps(steps))));
}

}  // namespace

double measure_rate(const Model& model) {
  constexpr int kRows = 1024;
  constexpr double kMoment = 0.3;
  const auto modules = list_modules(model.spec);
  const auto& module = largest_linear(modules);
  const int in = static_cast<int>(module.in);
  const int out = static_cast<int>(module.out);
  auto x = mx::astype(mx::random::normal({kRows, in}), model.dtype);
  auto w = mx::astype(mx::random::normal({out, in}), model.dtype);
  mx::eval({x, w});
  double best = 0;
  const auto begin = Clock::now();
  double passed = 0;
  while (passed < kMoment) {
    const auto start = Clock::now();
    auto y = ops::linear(x, w);
    mx::eval(y);
    const auto end = Clock::now();
    const double took = std::chrono::duration<double>(end - start).count();
    best = std::max(best, 2.0 * kRows * in * out / std::max(took, 1e-9));
    passed = std::chrono::duration<double>(end - begin).count();
  }
  return best;
}

TimePlan plan_time(
    const Model& model,
    const StageSizes& sizes,
    int sequence_length,
    double rate) {
  const auto weights = count_weights(model);
  const double length = sequence_length;
  const double p = weights.blocks;
  const double h = weights.head;
  TimePlan plan;
  const double cost_tokens = sizes.cost_sequences * length;
  plan.costs = cost_tokens * (8 * p + 6 * h) / (kCostShare * rate) +
      kCostRoundSeconds * weights.all_blocks / kernels::thread_count();
  const double gptq_tokens = sizes.gptq_sequences * length;
  plan.gptq =
      gptq_tokens * (4 * p + 4 * weights.squares) / (kGptqShare * rate) +
      kRoundSeconds * weights.all_blocks / kernels::thread_count();
  if (sizes.fold_every > 0) {
    plan.gptq *= 1 + kFoldTries / sizes.fold_every;
  }
  if (sizes.learn_steps > 0) {
    plan.learned = plan.gptq +
        sizes.learn_steps * kLearnTokens * 6 * p / (kLearnShare * rate);
  }
  plan.dwq = trained_sequences(sizes) * length * 10 * (p + h) * kDwqMeasures /
      (kDwqShare * rate);
  plan.rest =
      5 * MixSize{}.gate * length * 4 * (p + h) / (kEvaluateShare * rate);
  return plan;
}

std::string fit_into_time(
    const Model& model,
    int sequence_length,
    double rate,
    double seconds,
    StageSizes& sizes) {
  constexpr int kFewestFitted = 16;
  constexpr int kFewestSteps = 20;
  constexpr int kFewestSequences = 32;
  const auto plan = plan_time(model, sizes, sequence_length, rate);
  if (plan.after_costs() <= seconds) {
    return {};
  }
  std::string text = "to keep --time-limit";
  const auto scaled = [](int value, double share) {
    return static_cast<int>(std::floor(std::clamp(share, 0.0, 1.0) * value));
  };
  const auto cut = [&](const char* what, int& value, int to) {
    if (value != to) {
      text += std::string(", ") + what + " were cut from " +
          std::to_string(value) + " to " + std::to_string(to);
    }
    value = to;
  };
  // Steps of learned rounding, whose walk is GPTQ's again, and distillation
  // share what GPTQ leaves; without enough steps all is distillation's.
  double left = seconds - plan.rest - plan.gptq;
  if (sizes.learn_steps > 0) {
    const double steps = plan.learned - plan.gptq;
    const double share = (left - plan.gptq) / (steps + plan.dwq);
    const int to = scaled(sizes.learn_steps, share);
    cut("steps of learned rounding",
        sizes.learn_steps,
        to < kFewestSteps ? 0 : to);
    if (sizes.learn_steps > 0) {
      left -= plan.gptq + std::min(share, 1.0) * steps;
    }
  }
  if (sizes.dwq_sequences > 0 && left < plan.dwq) {
    sizes.dwq_sequences *= sizes.dwq_epochs;
    sizes.dwq_epochs = 1;
    // Trials of the rate do not shrink as training does.
    const double each = plan.dwq / trained_sequences(sizes);
    auto shorter = sizes;
    while (shorter.dwq_sequences >= kFewestSequences &&
           trained_sequences(shorter) * each > left) {
      --shorter.dwq_sequences;
    }
    cut("sequences of distillation",
        sizes.dwq_sequences,
        shorter.dwq_sequences < kFewestSequences ? 0 : shorter.dwq_sequences);
  }
  const int before = sizes.gptq_sequences;
  cut("sequences of GPTQ",
      sizes.gptq_sequences,
      std::max(
          scaled(before, seconds / (plan.gptq + plan.rest)),
          std::min(before, kFewestFitted)));
  const double after =
      plan_time(model, sizes, sequence_length, rate).after_costs();
  if (after > 1.05 * seconds) {
    text += ", and it will be passed: what is left takes about " +
        std::to_string(int64_t(after)) + " s";
  }
  return text;
}

double parse_seconds(const std::string& text, const std::string& option) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data(), end, value);
  const std::string unit(stop, end);
  const double factor = unit.empty() || unit == "s" ? 1
      : unit == "m" || unit == "min"                ? 60
      : unit == "h"                                 ? 3600
                                                    : 0;
  if (failed != std::errc() || !(value * factor > 0) || !std::isfinite(value)) {
    throw Error(
        ErrorCode::invalid_argument,
        "options",
        option + " '" + one_line(text, 40) +
            "' is no time such as 90s, 30m or 2h");
  }
  return value * factor;
}

QuantizeMemory plan_memory(
    const Model& model,
    const WidthPlan& widths,
    const StageSizes& sizes,
    int sequence_length,
    const std::optional<std::string>& limit) {
  QuantizeMemory memory;
  GptqStage rounding{GptqOptions{}};
  LearnedOptions options;
  options.steps = sizes.learn_steps;
  LearnedStage learned(rounding, options);
  const Stage& stage =
      sizes.learn_steps > 0 ? static_cast<const Stage&>(learned) : rounding;
  MemoryDemand demand{
      int64_t{sizes.gptq_sequences + MixSize{}.gate} * sequence_length,
      2048,
      std::nullopt};
  if (limit) {
    demand.limit = parse_bytes(*limit, "--memory-limit");
  }
  memory.rounding = make_memory_plan(model, widths.plan, stage, demand).peak();
  if (sizes.dwq_sequences > 0) {
    constexpr int64_t kBeside = int64_t{600} << 20;  // of a step and program
    int64_t groups = 0;
    int64_t head = 0;
    for (const auto& own : widths.modules) {
      const auto& module = own.module;
      if (own.spec && own.spec->bits < 8) {
        groups += module.out * module.in * std::max<int64_t>(1, module.count) /
            own.spec->group_size;
      }
      head = std::max(head, module.block < 0 ? module.out * module.in : 0);
    }
    // Masters, moments, gradients and the best so far of scale and bias; the
    // head dense and its gradient.
    memory.dwq = widths.bytes + groups * 2 * (4 * 4 + 2) + head * 8 + kBeside;
  }
  return memory;
}

Json to_json(const StageSizes& sizes) {
  Json json{
      {"cost_sequences", sizes.cost_sequences},
      {"gptq_sequences", sizes.gptq_sequences},
      {"fold_every", sizes.fold_every},
      {"learn_steps", sizes.learn_steps},
      {"dwq_sequences", sizes.dwq_sequences},
      {"dwq_epochs", sizes.dwq_epochs}};
  if (sizes.dwq_rate) {
    json["dwq_rate"] = *sizes.dwq_rate;
  }
  return json;
}

StageSizes sizes_from_json(const Json& json) {
  StageSizes sizes;
  sizes.cost_sequences = json.at("cost_sequences").get<int>();
  sizes.gptq_sequences = json.at("gptq_sequences").get<int>();
  sizes.fold_every = json.at("fold_every").get<int>();
  sizes.learn_steps = json.at("learn_steps").get<int>();
  sizes.dwq_sequences = json.at("dwq_sequences").get<int>();
  sizes.dwq_epochs = json.at("dwq_epochs").get<int>();
  if (json.contains("dwq_rate")) {
    sizes.dwq_rate = json.at("dwq_rate").get<double>();
  }
  return sizes;
}

}  // namespace pennyweight
