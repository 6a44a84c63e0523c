#include "method/learned/method.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "core/json.h"
#include "core/text.h"
#include "method/dwq/optimizer.h"

namespace pennyweight {

namespace {

constexpr int kMeasures = 5;
// Tokens that curvatures are estimated from.
constexpr int64_t kProbes = 8192;
// So many measures in a row that are no better than the one before are the end.
// (Not than the best: the first steps may raise the error.)
constexpr int kPatience = 2;

bool is_learned(const QuantSpec& spec) {
  return spec.mode == "affine";
}

/// This process's batches in an order that the seed determines, each once a
/// round.
class Draw {
 public:
  Draw(const FitText& text, uint64_t seed)
      : tokens_(text.tokens),
        processes_(text.processes),
        random_(seed),
        order_(text.tokens.size()),
        next_(order_.size()) {
    std::iota(order_.begin(), order_.end(), 0);
  }

  /// Of at least so many tokens, of all processes together.
  std::vector<size_t> next(int64_t wanted) {
    std::vector<size_t> drawn;
    int64_t tokens = 0;
    while (tokens * processes_ < wanted && drawn.size() < order_.size()) {
      if (next_ == order_.size()) {
        shuffle();
      }
      drawn.push_back(order_[next_++]);
      tokens += tokens_[drawn.back()];
    }
    return drawn;
  }

 private:
  // std::shuffle is another one in each standard library.
  void shuffle() {
    for (size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[random_() % i]);
    }
    next_ = 0;
  }

  std::vector<int64_t> tokens_;
  int64_t processes_;
  std::mt19937_64 random_;
  std::vector<size_t> order_;
  size_t next_;
};

/// One block under training.
class Training {
 public:
  Training(BlockTask& task, const LearnedOptions& options)
      : task_(task),
        options_(options),
        draw_(
            task.fit_text(),
            options.seed + static_cast<uint64_t>(task.spec().index)) {
    for (const LinearGroup& group : task.groups()) {
      for (const ModuleSpec& module : group.modules) {
        dense_.insert_or_assign(
            module.path, task.expand(task.packed().at(module.path)));
        if (is_learned(task.quant_spec(module))) {
          paths_.push_back(module.path);
        }
      }
    }
    const auto curvatures =
        task.curvature(dense_, paths_, draw_.next(kProbes), options.seed);
    for (const auto& path : paths_) {
      weights_.try_emplace(
          path, task.packed().at(path), task.weight(path), curvatures.at(path));
    }
  }

  void run() {
    start_ = best_ = measure();
    const int every = std::max(1, options_.steps / kMeasures);
    int since = 0;
    for (steps_ = 0; steps_ < options_.steps && since < kPatience;) {
      const double loss = advance();
      if (!std::isfinite(loss)) {
        diverged_ = true;
        return;
      }
      if (++steps_ % every == 0 || steps_ == options_.steps) {
        const double last = errors_.back();
        keep_if_better();
        since = errors_.back() < last ? 0 : since + 1;
      }
    }
  }

  double start() const {
    return start_;
  }
  /// The least error after the start.
  double trained() const {
    return trained_;
  }
  bool better() const {
    return !kept_.empty();
  }
  bool diverged() const {
    return diverged_;
  }
  /// The best state after the start, where it is better.
  const PackedBlock& kept() const {
    return kept_;
  }
  Json figures() const {
    return {
        {"steps", steps_},
        {"errors", errors_},
        {"losses", losses_},
        {"codes_moved", moved_}};
  }

 private:
  double measure() {
    const double error = judged_error(task_, dense_);
    errors_.push_back(error);
    return error;
  }

  double advance() {
    auto step = task_.gradient(dense_, paths_, draw_.next(options_.tokens));
    sum_ += step.error;
    const double rate = scheduled_rate(1, steps_, options_.steps);
    for (auto& [path, weight] : weights_) {
      weight.update(
          step.gradients.at(path),
          {.rate = rate * options_.rate,
           .grid_rate = rate * options_.grid_rate,
           .factor = step.factor,
           .step = steps_ + 1});
      step.gradients.erase(path);
      dense_.insert_or_assign(path, weight.weight());
    }
    return step.error;
  }

  void keep_if_better() {
    losses_.push_back(sum_ / double(steps_ - summed_));
    sum_ = 0;
    summed_ = steps_;
    const double error = measure();
    trained_ = std::isfinite(error) ? std::min(trained_, error) : trained_;
    if (!(error < best_)) {
      return;
    }
    best_ = error;
    double moved = 0;
    double count = 0;
    for (const auto& [path, weight] : weights_) {
      kept_.insert_or_assign(path, weight.packed());
      const double own = double(dense_.at(path).size());
      moved += own * weight.moved();
      count += own;
    }
    moved_ = moved / count;
  }

  BlockTask& task_;
  LearnedOptions options_;
  Draw draw_;
  std::vector<std::string> paths_;
  std::map<std::string, LearnedWeight> weights_;
  DenseBlock dense_;
  PackedBlock kept_;
  double start_ = 0;
  double best_ = 0;
  double trained_ = INFINITY;
  double moved_ = 0;
  double sum_ = 0;  // of losses since the last measure
  int summed_ = 0;
  int steps_ = 0;
  bool diverged_ = false;
  std::vector<double> errors_;
  std::vector<double> losses_;
};

bool wants(const BlockTask& task, const LearnedOptions& options) {
  return options.steps > 0 &&
      std::ranges::any_of(task.groups(), [&](const LinearGroup& group) {
           return std::ranges::any_of(
               group.modules, [&](const ModuleSpec& module) {
                 const auto& spec = task.quant_spec(module);
                 return is_learned(spec) && spec.bits <= options.max_bits;
               });
         });
}

std::string describe_left(const BlockSpec& block, const Training& training) {
  if (training.diverged()) {
    return block.path + ": learned rounding diverged" +
        (training.better() ? "; the best state before that was kept"
                           : " and was dropped");
  }
  return block.path + ": learned rounding has not lowered the error (" +
      fixed(100 * training.trained(), 2) + " % against " +
      fixed(100 * training.start(), 2) + " %) and was dropped";
}

}  // namespace

MethodNeeds LearnedMethod::needs() const {
  auto needs = first_->needs();
  // Inputs that are not kept otherwise.
  needs.restarts = needs.restarts || !needs.quantized_inputs;
  return needs;
}

int64_t LearnedMethod::working_bytes(const BlockSpec& block) const {
  // Of each weight a latent and its moments, two gradients, the weight as it
  // runs, its code now and in the best state; beside that what a batch leaves
  // for the way back.
  return std::max(
      first_->working_bytes(block),
      (3 * 4 + 2 * 4 + 4 + 2) * count_weights(block));
}

BlockOperations LearnedMethod::operations(
    const BlockSpec& block,
    const TextSize& text) const {
  auto work = first_->operations(block, text);
  work.gradients +=
      std::min(text.fit, double(kProbes)) + options_.steps * options_.tokens;
  work.learned_steps += options_.steps;
  work.forward += (1 + kMeasures) * text.held_out;
  return work;
}

BlockFigures LearnedMethod::run(BlockTask& task) {
  auto figures = first_->run(task);
  if (!wants(task, options_)) {
    return figures;
  }
  Training training(task, options_);
  training.run();
  set_all(task, training.kept());
  figures.details["learned"] = training.figures();
  if (figures.kept.empty()) {
    figures.kept = first_->name();
  }
  std::map<std::string, double> errors{{figures.kept, training.start()}};
  if (std::isfinite(training.trained())) {
    errors["learned"] = training.trained();
  }
  if (task.has_held_out()) {
    for (const auto& [way, error] : errors) {
      figures.held_out_error[way] = error;
    }
  } else {
    figures.details["fit_error"] = errors;
  }
  if (training.better()) {
    figures.kept = "learned";
  }
  if (training.diverged() || !training.better()) {
    figures.warnings.push_back(describe_left(task.spec(), training));
  }
  return figures;
}

}  // namespace pennyweight
