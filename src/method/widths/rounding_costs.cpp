#include "method/widths/rounding_costs.h"

#include <algorithm>
#include <limits>
#include <map>

#include "core/error.h"
#include "core/time_left.h"
#include "method/packed_block.h"
#include "method/widths/cost_sums.h"
#include "method/widths/table_costs.h"
#include "ops/kl_head.h"
#include "pass/block_work.h"
#include "pass/floats.h"
#include "pass/model_pass.h"

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
        blocks_(model.spec.blocks.size()),
        budget_{settings.activation_bytes},
        pass_(
            model,
            make_token_batches(
                sequences,
                model.spec.vocab,
                settings.batch_tokens),
            {.dtype = model.dtype,
             .scratch_folder = settings.scratch_folder,
             .keep_inputs = true},
            budget_),
        tables_(load_embedding_and_head(model, model.dtype)),
        tokens_(pass_.tokens()) {
    require_finite(model, tables_);
  }

  RoundingCosts run() {
    left_ = TimeLeft(count_steps(model_, settings_, double(tokens_)));
    pass_.embed(&tables_);
    pass_.forward(
        [&](const BlockSpec& block) {
          tick(static_cast<size_t>(block.index));
          return pass_.load(block);
        },
        {},
        [&](const BlockSpec&, size_t batch, const auto&, const auto&) {
          if (batch + 1 == pass_.batches().size()) {
            left_.done();
          }
        });
    const auto tables =
        measure_table_costs({model_, tables_, pass_}, settings_, progress_);
    for (const auto& costs : tables) {
      add(costs.path, costs);
    }
    left_.done();
    through_head();
    left_.done();
    pass_.backward([&](const BlockSpec& block) {
      backward(block);
      left_.done();
    });
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
    const double measured = std::min(tokens, double(settings.table_tokens));
    const double head = double(model.spec.vocab) * double(model.spec.hidden);
    double tables = 0;
    for (const ModuleSpec& module : list_stored_modules(model.spec)) {
      if (module.block < 0) {
        tables +=
            double(settings.gptq_bits.size()) * measured * (all + 4 * head);
      }
    }
    auto steps = forward;
    steps.push_back(tables);
    steps.push_back(2 * tokens * head);
    steps.insert(steps.end(), backward.rbegin(), backward.rend());
    return steps;
  }

  void through_head() {
    tick(blocks_);
    int64_t first = 0;
    for (size_t i = 0; i < pass_.batches().size(); ++i) {
      const auto by_rows = ops::fisher_head(
          tables_.head.head(pass_.head_rows(tables_, i), tables_.logit_cap),
          settings_.seed,
          first);
      pass_.head_back(tables_, i, by_rows);
      first += pass_.batches()[i].count;
    }
  }

  void backward(const BlockSpec& spec) {
    tick(2 * blocks_ - static_cast<size_t>(spec.index));
    const auto weights = pass_.load(spec);
    CostSums sums(spec);
    pass_.back(spec, [&](size_t i, const mx::array& x, const mx::array& dy) {
      return sums.add(weights, pass_.batches()[i], x, dy, pass_.context());
    });
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
          module.expert ? part_path(module.stored, part) : module.path;
      const auto losses = rounding_losses(
          {*weights.linears.at(path).dense,
           *sums.metric,
           sums.gradients.row_weights(part),
           hessian},
          settings_.candidates,
          settings_.gptq_bits,
          settings_.row_step);
      ModuleCosts costs{module.stored, module.in * module.out, {}};
      for (const double loss : losses) {
        costs.losses.push_back(loss / double(tokens_));
      }
      add(module.stored, costs);
    }
  }

  /// Parts of a stack are rounded alike, and so counted together.
  void add(const std::string& stored, const ModuleCosts& costs) {
    const auto [it, first] = found_.emplace(stored, costs);
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
    for (const ModuleSpec& module : list_stored_modules(model_.spec)) {
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
            module.published ? std::numeric_limits<double>::quiet_NaN()
                : !candidate ? 0
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
  size_t blocks_;
  MemoryBudget budget_;
  ModelPass pass_;
  EmbeddingAndHead tables_;
  int64_t tokens_;
  TimeLeft left_{{}};
  std::map<std::string, ModuleCosts> found_;  // by stored module
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
