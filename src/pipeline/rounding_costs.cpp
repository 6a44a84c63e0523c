#include "pipeline/rounding_costs.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "calibration/activation_store.h"
#include "calibration/floats.h"
#include "calibration/token_batches.h"
#include "core/error.h"
#include "method/rounding_loss.h"
#include "model/gradients.h"
#include "ops/kl_head.h"
#include "pipeline/outer_costs.h"
#include "pipeline/packed_block.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "costs";

/// sum += x x^T over rows, in the sum's own memory.
void add_gram(std::optional<mx::array>& sum, const mx::array& x) {
  const int in = x.shape(1);
  auto before = std::exchange(sum, std::nullopt);
  if (!before) {
    before = mx::zeros({in, in});
  }
  auto after = ops::gram_add(*before, {x}, x);
  before.reset();
  mx::eval(after);
  sum = std::move(after);
}

/// Each row of x times its own factor; in a type that holds small ones.
mx::array scaled(const mx::array& x, const mx::array& factors) {
  const auto type = x.dtype() == mx::float16 ? mx::float32 : x.dtype();
  return mx::multiply(mx::astype(x, type), mx::astype(factors, type));
}

/// What is summed of a linear, or of a stack of experts.
struct TraceSums {
  SlopeSums slopes;
  std::optional<mx::array> metric;
};

/// One block on the way back.
class BlockSums {
 public:
  explicit BlockSums(const BlockSpec& spec) {
    for (const ModuleSpec& module : list_modules(spec)) {
      if (!module.expert || module.part == 0) {
        const auto path = module.expert ? module.home : module.path;
        modules_.emplace(path, module);
      }
    }
  }

  void add(
      const TokenBatch& batch,
      std::map<std::string, LinearTrace> linears) {
    std::map<std::string, bool> counted;
    for (auto& [path, trace] : linears) {
      const ModuleSpec& module = modules_.at(path);
      pick(batch, trace);
      const auto& [own, first] = sums_.try_emplace(
          path, SlopeSums(module.out, module.expert ? module.count : 1));
      const auto weights = own->second.slopes.add(*trace.dy, trace.expert);
      auto& x = *trace.x;
      if (module.expert && batch.picks) {
        // Padding has no gradient.
        x = scaled(
            x, mx::astype(mx::greater(weights, mx::array(0.0f)), mx::float32));
      }
      add_gram(own->second.metric, scaled(x, mx::sqrt(weights)));
      if (!std::exchange(counted[module.input_id], true)) {
        add_gram(hessians_[module.input_id], x);
      }
      trace = {};
    }
  }

  const std::map<std::string, ModuleSpec>& modules() const {
    return modules_;
  }
  const std::map<std::string, TraceSums>& sums() const {
    return sums_;
  }
  mx::array hessian(const std::string& input_id) const {
    return *hessians_.at(input_id);
  }

 private:
  /// Rows of tokens; of experts those of padding too.
  static void pick(const TokenBatch& batch, LinearTrace& trace) {
    const auto rows = [&](const mx::array& x) {
      const int length = batch.tokens.shape(1);
      return pick_tokens(batch, mx::reshape(x, {-1, length, x.shape(-1)}));
    };
    if (!trace.expert) {
      trace.x = rows(*trace.x);
      trace.dy = rows(*trace.dy);
    }
  }

  std::map<std::string, ModuleSpec> modules_;
  std::map<std::string, TraceSums> sums_;
  std::map<std::string, std::optional<mx::array>> hessians_;  // by input_id
};

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
    for (const BlockSpec& block : model_.spec.blocks) {
      forward(block);
    }
    const auto outer = measure_outer_costs(
        {model_, outer_, batches_, [&](size_t i) { return input(blocks_, i); }},
        settings_,
        progress_);
    for (const auto& costs : outer) {
      add(costs.path, costs);
    }
    through_head();
    for (size_t i = blocks_; i-- > 0;) {
      backward(model_.spec.blocks[i]);
    }
    return finish();
  }

 private:
  void tick(size_t step) {
    report(
        progress_, {kWhere, int64_t(step), int64_t(2 * blocks_ + 1), "blocks"});
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
    BlockSums sums(spec);
    for (size_t i = 0; i < batches_.size(); ++i) {
      auto traces =
          trace_block(spec, weights, input(index, i), slopes_.get(i), context_);
      std::vector<mx::array> wanted{traces.x};
      for (const auto& [path, trace] : traces.linears) {
        wanted.insert(wanted.end(), {*trace.x, *trace.dy});
        if (trace.expert) {
          wanted.push_back(*trace.expert);
        }
      }
      mx::eval(wanted);
      slopes_.put(i, traces.x);
      sums.add(batches_[i], std::move(traces.linears));
    }
    weigh(weights, sums);
  }

  /// Linears of one input after the other, so that its Hessian is factored
  /// once.
  void weigh(const BlockWeights& weights, const BlockSums& sums) {
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
        throw about(kWhere, paths.front(), error);
      }
    }
  }

  void weigh(
      const BlockWeights& weights,
      const ModuleSpec& module,
      const TraceSums& sums,
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
