// Estimates count the operations of matrix products, by stage, and divide by
// what the machine does; the shares that stages reach of that rate were
// measured (docs/performance.md).
#include "pipeline/time_plan.h"

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "kernels/threads.h"
#include "pipeline/dwq.h"
#include "pipeline/dwq_train.h"
#include "pipeline/rounding_costs.h"

namespace pennyweight {

namespace {

using Clock = std::chrono::steady_clock;

// Shares of the rate that a stage's products reach, all else that goes with
// tokens counted in.
constexpr double kCostShare = 0.7;
constexpr double kGptqShare = 0.65;
constexpr double kLearnShare = 0.7;
constexpr double kDwqShare = 0.6;
// Measures on held-out text, in times of the steps.
constexpr double kDwqMeasures = 1.1;
constexpr double kEvaluateShare = 0.75;
// GPTQ of a weight, with grids, refit, descent and the gate; no matter of the
// matmul's rate. Costs round to three widths, without the last three, and to
// nearest by every candidate.
constexpr double kRoundSeconds = 2e-7;  // on one core
constexpr double kCostRoundSeconds = 2e-7;
constexpr double kNearestSeconds = 2e-7;
constexpr double kLearnTokens = 4096;
// A block in which folding is tried, in times of one in which it is not.
constexpr double kFoldTries = 2.5;
// Forward passes of a block for the gate: both streams, rounding to nearest,
// and in every eighth block three more ways.
constexpr double kGatePasses = 3.4;
constexpr double kHeadTokens = 8192;  // to which the head is fitted
// What generation reads of weights in a second, and the tokens made.
constexpr double kReadRate = 8e9;
constexpr double kMadeTokens = 48;

/// Weights that a token goes through.
struct Weights {
  double blocks = 0;
  double head = 0;
  double all_blocks = 0;   // of experts all
  double squares = 0;      // sum over what linears read of width^2
  double all_squares = 0;  // the same over linears
  double outer = 0;        // of embedding and head
  int embedded = 0;        // modules that are measured as embedding
};

Weights count_weights(const Model& model) {
  Weights sum;
  std::string input;
  for (const ModuleSpec& module : list_modules(model.spec)) {
    const double own = double(module.out) * double(module.in);
    if (module.block < 0) {
      const bool head = module.tied || module.kind == ModuleSpec::Kind::head;
      sum.head += head ? own : 0;
      sum.outer += own;
      sum.embedded += module.kind == ModuleSpec::Kind::head ? 0 : 1;
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
    sum.all_squares += share * double(module.in) * double(module.in);
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

}  // namespace

double trained_sequences(const StageSizes& sizes) {
  const int64_t batch = DwqOptions().batch_size;
  const int64_t sequences = int64_t{sizes.dwq_sequences} * sizes.dwq_epochs;
  const int64_t steps = (sequences + batch - 1) / batch;
  return double(
      batch * (steps + (sizes.dwq_rate ? 0 : rate_trial_steps(steps))));
}

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
  const double threads = kernels::thread_count();
  TimePlan plan;
  const CostSettings costs;
  plan.costs = sizes.cost_sequences * length *
          (6 * p + weights.all_squares + weights.squares + 4 * h) +
      weights.embedded * double(costs.gptq_bits.size()) *
          double(costs.outer_tokens) * (2 * p + 4 * h);
  plan.costs = plan.costs / (kCostShare * rate) +
      (kNearestSeconds + kCostRoundSeconds / sizes.cost_row_step) *
          weights.all_blocks / threads +
      (kNearestSeconds + kCostRoundSeconds) * weights.outer / threads;
  plan.gptq = sizes.gptq_sequences * length * (4 * p + 4 * weights.squares) +
      sizes.block_gate * length * kGatePasses * 2 * p + kHeadTokens * 2 * p;
  plan.gptq = plan.gptq / (kGptqShare * rate) +
      kRoundSeconds * (weights.all_blocks + weights.outer) / threads;
  if (sizes.fold_every > 0) {
    plan.gptq *= 1 + kFoldTries / sizes.fold_every;
  }
  if (sizes.learn_steps > 0) {
    plan.learned = plan.gptq +
        sizes.learn_steps * kLearnTokens * 6 * p / (kLearnShare * rate);
  }
  plan.dwq = trained_sequences(sizes) * length * 10 * (p + h) * kDwqMeasures /
      (kDwqShare * rate);
  // The full model over the gate's text once, each stage's model, and both over
  // the report's; what both say.
  const int stages =
      2 + int(sizes.learn_steps > 0) + int(sizes.dwq_sequences > 0);
  const double gate_tokens = sizes.gate_sequences * length;
  const double measured = gate_tokens * (2 * p + stages * (2 * p + 4 * h)) +
      sizes.report_sequences * length * 4 * (p + h);
  plan.rest = measured / (kEvaluateShare * rate) +
      kMadeTokens * 2 * 2 * (weights.all_blocks + weights.outer) / kReadRate;
  return plan;
}

Json to_json(const StageSizes& sizes) {
  Json json{
      {"cost_sequences", sizes.cost_sequences},
      {"cost_row_step", sizes.cost_row_step},
      {"gate_sequences", sizes.gate_sequences},
      {"block_gate", sizes.block_gate},
      {"report_sequences", sizes.report_sequences},
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
  sizes.cost_row_step = json.at("cost_row_step").get<int>();
  sizes.gate_sequences = json.at("gate_sequences").get<int>();
  sizes.block_gate = json.at("block_gate").get<int>();
  sizes.report_sequences = json.at("report_sequences").get<int>();
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
