#include "method/widths/rounding_costs.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <limits>
#include <map>

#include "core/error.h"
#include "core/time_left.h"
#include "method/packed_block.h"
#include "method/widths/cost_sums.h"
#include "method/widths/outer_costs.h"
#include "model/decoder.h"
#include "ops/kl_head.h"
#include "pass/activation_store.h"
#include "pass/block_work.h"
#include "pass/floats.h"
#include "pass/token_batches.h"

namespace pennyweight {

namespace {

class CostPass {
 public:
  CostPass(
      const Model& model,
      const std::vector<std::vector<int32_t>>& sequences,
      const CostSettings& settings,
      const ProgressFn& progress)
      : model_(model),
        settings_(settings),
        progress_(progress),
        context_{.dtype = model.dtype},
        batches_(make_token_batches(
            sequences,
            model.spec.vocab,
            settings.batch_tokens)),
        blocks_(model.spec.blocks.size()),
        budget_{settings.activation_bytes},
        slopes_(batches_.size(), budget_, settings.scratch_folder),
        inputs_(
            (blocks_ + 1) * batches_.size(),
            budget_,
            settings.scratch_folder),
        outer_(load_outer(model, model.dtype)) {
    for (const auto& batch : batches_) {
      tokens_ += batch.count;
    }
    require_finite(model, outer_);
  }

  RoundingCosts run() {
    for (size_t i = 0; i < batches_.size(); ++i) {
      put(0, i, embed(outer_, batches_[i].tokens));
    }
    left_ = TimeLeft(count_steps(model_, settings_, double(tokens_)));
    for (const BlockSpec& block : model_.spec.blocks) {
      forward(block);
      left_.done();
    }
    const auto outer = measure_outer_costs(
        {model_, outer_, batches_, [&](size_t i) { return input(blocks_, i); }},
        settings_,
        progress_);
    for (const auto& costs : outer) {
      add(costs.path, costs);
    }
    left_.done();
    through_head();
    left_.done();
    for (size_t i = blocks_; i-- > 0;) {
      backward(model_.spec.blocks[i]);
      left_.done();
    }
    return finish();
  }

 private:
  /// Said before a step, whose end is told to left_.
  void tick(size_t step) {
    report(
        progress_,
        {"costs",
         int64_t(step),
         int64_t(2 * blocks_ + 1),
         "blocks",
         "",
         false,
         left_.seconds()});
  }

  /// Forward through each block, what is outside them, the head, and back.
  static std::vector<double>
  count_steps(const Model& model, const CostSettings& settings, double tokens) {
    std::vector<double> forward;
    std::vector<double> backward;
    double all = 0;
    const double points =
        double(settings.gptq_bits.size()) / double(settings.row_step);
    for (const BlockSpec& block : model.spec.blocks) {
      const auto work = count_work(block);
      all += work.products;
      forward.push_back(tokens * work.products);
      // A pass alone takes a sixth of all that GPTQ does.
      backward.push_back(
          tokens * (3 * work.products + 2 * work.sums) +
          points * work.rounding / 6);
    }
    const double measured = std::min(tokens, double(settings.outer_tokens));
    const double head = double(model.spec.vocab) * double(model.spec.hidden);
    double outer = 0;
    for (const ModuleSpec& module : list_homes(model.spec)) {
      if (module.block < 0) {
        outer +=
            double(settings.gptq_bits.size()) * measured * (all + 4 * head);
      }
    }
    auto steps = forward;
    steps.push_back(outer);
    steps.push_back(2 * tokens * head);
    steps.insert(steps.end(), backward.rbegin(), backward.rend());
    return steps;
  }

  void put(size_t block, size_t batch, const mx::array& x) {
    inputs_.put(block * batches_.size() + batch, x);
  }
  mx::array input(size_t block, size_t batch) const {
    return inputs_.get(block * batches_.size() + batch);
  }

  void forward(const BlockSpec& spec) {
    const auto index = static_cast<size_t>(spec.index);
    tick(index);
    const auto weights =
        load_block(model_, spec.index, model_.dtype, PackedWeights::expand);
    require_finite(weights);
    for (size_t i = 0; i < batches_.size(); ++i) {
      put(index + 1, i, run_block(spec, weights, input(index, i), context_));
    }
  }

  void through_head() {
    tick(blocks_);
    int64_t first = 0;
    for (size_t i = 0; i < batches_.size(); ++i) {
      const auto rows = [&](const std::vector<mx::array>& in) {
        return std::vector<mx::array>{pick_tokens(
            batches_[i], final_norm(model_.spec, outer_, in[0], model_.dtype))};
      };
      const auto x = input(blocks_, i);
      const auto dx = ops::fisher_head(
          outer_.head.head(rows({x})[0], outer_.logit_cap),
          settings_.seed,
          first);
      slopes_.put(
          i, mx::vjp(rows, {x}, {mx::astype(dx, model_.dtype)}).second[0]);
      first += batches_[i].count;
    }
  }

  void backward(const BlockSpec& spec) {
    const auto index = static_cast<size_t>(spec.index);
    tick(2 * blocks_ - index);
    const auto weights =
        load_block(model_, spec.index, model_.dtype, PackedWeights::expand);
    CostSums sums(spec);
    for (size_t i = 0; i < batches_.size(); ++i) {
      slopes_.put(
          i,
          sums.add(
              weights, batches_[i], input(index, i), slopes_.get(i), context_));
    }
    weigh(weights, sums);
  }

  /// Linears of one input after the other, so that its Hessian is factored
  /// once.
  void weigh(const BlockWeights& weights, const CostSums& sums) {
    std::map<std::string, std::vector<std::string>> by_input;
    for (const auto& [path, own] : sums.sums()) {
      const ModuleSpec& module = sums.modules().at(path);
      if (module.packable) {
        by_input[module.input_id].push_back(path);
      }
    }
    GptqOptions options;
    for (const auto& [input_id, paths] : by_input) {
      try {
        const GptqHessian hessian(
            to_vector(sums.hessian(input_id)),
            sums.modules().at(paths.front()).in,
            options);
        for (const auto& path : paths) {
          weigh(
              weights, sums.modules().at(path), sums.sums().at(path), hessian);
        }
      } catch (const Error& error) {
        throw about("costs", paths.front(), error);
      }
    }
  }

  void weigh(
      const BlockWeights& weights,
      const ModuleSpec& module,
      const CostSums::Linear& sums,
      const GptqHessian& hessian) {
    const int64_t parts = module.expert ? module.count : 1;
    for (int64_t part = 0; part < parts; ++part) {
      const auto& path =
          module.expert ? part_path(module.home, part) : module.path;
      const auto losses = rounding_losses(
          {*weights.linears.at(path).dense,
           *sums.metric,
           sums.slopes.row_weights(part),
           hessian},
          settings_.candidates,
          settings_.gptq_bits,
          settings_.row_step);
      ModuleCosts costs{module.home, module.in * module.out, {}};
      for (const double loss : losses) {
        costs.losses.push_back(loss / double(tokens_));
      }
      add(module.home, costs);
    }
  }

  /// Parts of a stack are rounded alike, and so counted together.
  void add(const std::string& home, const ModuleCosts& costs) {
    const auto [it, first] = found_.emplace(home, costs);
    if (first) {
      return;
    }
    it->second.parameters += costs.parameters;
    for (size_t i = 0; i < costs.losses.size(); ++i) {
      it->second.losses[i] += costs.losses[i];
    }
  }

  RoundingCosts finish() {
    RoundingCosts result{settings_.candidates, {}, tokens_};
    for (const ModuleSpec& module : list_homes(model_.spec)) {
      const auto it = found_.find(module.path);
      if (it != found_.end()) {
        result.modules.push_back(std::move(it->second));
        continue;
      }
      ModuleCosts none{
          module.path,
          module.in * module.out * std::max<int64_t>(1, module.count),
          {}};
      for (const auto& candidate : settings_.candidates) {
        none.losses.push_back(
            !candidate ? 0
                : module.packable && fits(*candidate, module.in)
                ? 0  // has no part in the output
                : std::numeric_limits<double>::quiet_NaN());
      }
      result.modules.push_back(std::move(none));
    }
    return result;
  }

  const Model& model_;
  const CostSettings& settings_;
  const ProgressFn& progress_;
  ForwardContext context_;
  std::vector<TokenBatch> batches_;
  size_t blocks_;
  MemoryBudget budget_;
  ActivationStore slopes_;
  ActivationStore inputs_;  // of each block and batch, and the last's output
  OuterWeights outer_;
  int64_t tokens_ = 0;
  TimeLeft left_{{}};
  std::map<std::string, ModuleCosts> found_;  // by home
};

}  // namespace

RoundingCosts measure_costs(
    const Model& model,
    const std::vector<std::vector<int32_t>>& sequences,
    const CostSettings& settings,
    const ProgressFn& progress) {
  return CostPass(model, sequences, settings, progress).run();
}

}  // namespace pennyweight
