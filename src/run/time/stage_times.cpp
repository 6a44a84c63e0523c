#include "run/time/stage_times.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "method/dwq/options.h"
#include "method/dwq/train.h"
#include "method/gptq/gptq.h"
#include "method/gptq/table_fit.h"
#include "method/learned/rounding.h"
#include "method/widths/rounding_costs.h"

namespace pennyweight {

namespace {

constexpr double kBatchTokens = 2048;
// See BlockWalk::table_batches().
constexpr double kTableTokens = 8192;
// Widths that nearest's loss is measured at: quantize's candidates of one
// group and another.
constexpr double kNearestSpecs = 13;
// See commands/quantize/report.cpp.
constexpr double kContinued = 48;

}  // namespace

StageTimes::StageTimes(
    const Model& model,
    const StageSizes& sizes,
    int sequence_length,
    const MachineRates& rates,
    const WidthPlan* widths)
    : model_(model),
      sizes_(sizes),
      length_(sequence_length),
      rates_(rates),
      blocks_(model.spec.blocks.size()),
      learned_(model.spec.blocks.size(), widths == nullptr) {
  for (const ModuleSpec& module : list_modules(model.spec)) {
    if (module.packable && !module.published) {
      auto& list = module.block < 0
          ? tables_
          : blocks_[static_cast<size_t>(module.block)];
      list.push_back(module);
    }
  }
  const int most = LearnedOptions{}.max_bits;
  if (widths) {
    bytes_ = double(widths->bytes);
    for (const auto& own : widths->modules) {
      if (own.module.block >= 0 && own.spec && !own.module.published &&
          own.spec->bits <= most) {
        learned_[static_cast<size_t>(own.module.block)] = true;
      }
    }
  }
}

double StageTimes::forward(double tokens) const {
  double seconds = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    seconds += rates_.block(i).load + tokens * rates_.block(i).forward;
  }
  return seconds;
}

template <class F>
double StageTimes::over_block(size_t block, F&& seconds) const {
  double sum = 0;
  for (const ModuleSpec& module : blocks_[block]) {
    sum += double(module.out) * seconds(width(module.in));
  }
  return sum;
}

double StageTimes::expand_all() const {
  double seconds = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    seconds += over_block(i, [](const auto& own) { return own.expand; });
  }
  return seconds;
}

// See measure_table_costs().
double StageTimes::table_costs() const {
  const CostSettings settings;
  const double batch = std::max(1.0, std::floor(kBatchTokens / length_));
  const double measured =
      tokens(std::min(double(sizes_.cost_sequences), batch));
  double seconds = 0;
  for (const ModuleSpec& module : tables_) {
    const auto& own = rates_.tables.at(module.in);
    const double rows = double(module.out);
    const bool embeds = module.kind != ModuleSpec::Kind::head;
    const double own_share = 1 / double(tables_.size());
    seconds += (is_head(module) ? own.factor : 0) +
        double(settings.gptq_bits.size()) *
            (own_share * rates_.head.load + rows * (own.pass + own.expand) +
             measured * rates_.head.divergence +
             (embeds ? forward(measured) : 0)) +
        kNearestSpecs * rows * own.nearest_loss;
  }
  return seconds;
}

// See rounding_losses(). Experts of a stack share a Hessian.
double StageTimes::weigh_block(size_t block) const {
  const double points = double(CostSettings{}.gptq_bits.size());
  const double step = sizes_.cost_row_step;
  std::set<std::string> factored;
  double seconds = 0;
  for (const ModuleSpec& module : blocks_[block]) {
    const auto& own = width(module.in);
    const auto input = module.expert ? module.stored : module.input_id;
    seconds += factored.insert(input).second ? own.factor : 0;
    double row = kNearestSpecs * own.nearest_loss +
        points * (own.pass + own.loss) / step;
    if (step > 1) {
      row += points * own.nearest_loss * (1 + 1 / step);
    }
    seconds += double(module.out) * row;
  }
  return seconds;
}

std::vector<double> StageTimes::cost_blocks() const {
  const double count = tokens(sizes_.cost_sequences);
  std::vector<double> seconds;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const auto& own = rates_.block(i);
    seconds.push_back(own.load + count * own.forward);
  }
  for (size_t i = blocks_.size(); i-- > 0;) {
    const auto& own = rates_.block(i);
    seconds.push_back(own.load + count * own.costs + weigh_block(i));
  }
  return seconds;
}

double StageTimes::costs() const {
  double seconds = rates_.head.load + table_costs() +
      tokens(sizes_.cost_sequences) * rates_.head.fisher;
  for (const double block : cost_blocks()) {
    seconds += block;
  }
  return seconds;
}

double StageTimes::evaluate(double count, bool reference) const {
  return (reference ? rates_.head.load + forward(count) : 0) + forward(count) +
      expand_all() + count * rates_.head.score;
}

double StageTimes::nearest() const {
  double seconds = evaluate(tokens(sizes_.gate_sequences), true) +
      rates_.head.load + bytes_ * rates_.write;
  for (const ModuleSpec& module : tables_) {
    seconds += double(module.out) * rates_.tables.at(module.in).nearest;
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    seconds += over_block(i, [](const auto& own) { return own.nearest; });
  }
  return seconds;
}

// See fit_tables().
double StageTimes::table_fit() const {
  double seconds = 0;
  bool read = false;
  for (const ModuleSpec& module : tables_) {
    const auto& own = rates_.tables.at(module.in);
    if (is_head(module)) {
      seconds += own.factor;
      read = true;
    }
    seconds += double(module.out) * own.round;
  }
  const double count = tokens(std::min(
      double(sizes_.gptq_sequences), std::ceil(kTableTokens / length_)));
  return seconds + (read ? forward(count) : 0);
}

double StageTimes::seconds_of(const BlockOperations& work, size_t block) const {
  const auto& own = rates_.block(block);
  std::set<std::string> inputs;
  double seconds =
      work.walks * (tokens(sizes_.gptq_sequences) * own.walk + own.walk_sums) +
      work.forward * own.forward + work.gradients * own.learn;
  for (const ModuleSpec& module : blocks_[block]) {
    const auto& rates = width(module.in);
    if (inputs.insert(module.input_id).second) {
      seconds += work.factored * rates.factor;
    }
    seconds += double(module.out) *
        (work.gptq * rates.round + work.nearest * rates.nearest +
         work.expanded * rates.expand + work.learned_steps * rates.learn);
  }
  return seconds;
}

double StageTimes::walk_block(const BlockMethod& method, size_t block) const {
  const auto& own = rates_.block(block);
  const TextSize text{tokens(sizes_.gptq_sequences), tokens(sizes_.block_gate)};
  // Held-out text goes along in both streams.
  return own.load + 2 * text.held_out * own.forward +
      seconds_of(method.operations(model_.spec.blocks[block], text), block);
}

double StageTimes::walk(const char* name) const {
  const auto own = make_stage({name, {}}, sizes_).method;
  const auto without = make_stage({stage::kGptq, {}}, sizes_).method;
  // Checked first, and read to be rounded.
  double seconds = 2 * rates_.head.load + table_fit() +
      2 * bytes_ * rates_.write +
      evaluate(tokens(sizes_.gate_sequences), false);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    seconds += walk_block(learned_[i] ? *own : *without, i);
  }
  return seconds;
}

double StageTimes::gptq() const {
  return walk(stage::kGptq);
}

double StageTimes::learned_steps() const {
  return sizes_.learn_steps > 0 ? walk(stage::kLearned) - gptq() : 0;
}

double StageTimes::learned() const {
  return sizes_.learn_steps > 0 ? walk(stage::kLearned) : 0;
}

// See Trainer.
double StageTimes::dwq() const {
  if (sizes_.dwq_sequences == 0) {
    return 0;
  }
  const auto [steps, trials] = distillation_steps(sizes_);
  const double batch = DwqOptions{}.batch_size;
  const double every = double(measure_interval(steps));
  const double trained = tokens(batch * double(steps + trials));
  const double measures =
      1 + std::ceil(double(steps) / every) + std::ceil(double(trials) / every);
  const double measured = measures * tokens(sizes_.gate_sequences);
  double seconds = rates_.head.load + forward(tokens(sizes_.gate_sequences));
  double token = rates_.head.distil;
  double load = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    token += rates_.block(i).distil + rates_.block(i).forward;  // the teacher
    load += rates_.block(i).load;
  }
  seconds += trained * token + measures * load + measures * expand_all() +
      measured * rates_.head.divergence;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    seconds += measured * rates_.block(i).forward;
  }
  return seconds + bytes_ * rates_.write +
      evaluate(tokens(sizes_.gate_sequences), false);
}

double StageTimes::report() const {
  double next = 2 * rates_.head.next;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    next += rates_.block(i).next + rates_.block(i).next_packed;
  }
  return evaluate(tokens(sizes_.report_sequences), true) + kContinued * next +
      rates_.start + bytes_ * rates_.write;
}

DistillationSteps distillation_steps(const StageSizes& sizes) {
  const int64_t batch = DwqOptions{}.batch_size;
  const int64_t sequences = int64_t{sizes.dwq_sequences} * sizes.dwq_epochs;
  const int64_t steps = (sequences + batch - 1) / batch;
  return {steps, sizes.dwq_rate ? 0 : rate_trial_steps(steps)};
}

}  // namespace pennyweight
