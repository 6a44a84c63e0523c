#include "pipeline/sensitivity.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <utility>

#include "calibration/activation_store.h"
#include "calibration/token_batches.h"
#include "model/gradients.h"
#include "ops/kl_head.h"
#include "pipeline/packed_block.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "dynamic-quant";

/// A weight as it is after rounding to `spec`; itself where that does not fit.
mx::array round_weight(const mx::array& weight, const QuantSpec& spec) {
  return fits(spec, weight.shape(1))
      ? ops::dequantize(quantize(weight, spec), weight.dtype())
      : weight;
}

/// sum += x, in the sum's own memory once it is evaluated.
void add_to(std::optional<mx::array>& sum, const mx::array& x) {
  // Taken out, since a sum that is held here too would be copied.
  const auto before = std::exchange(sum, std::nullopt);
  sum = before ? ops::accumulate(*before, x) : x;
}

class Pass {
 public:
  Pass(
      const Model& model,
      const std::vector<std::vector<int32_t>>& sequences,
      const SensitivitySettings& settings,
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
        full_(batches_.size(), budget_, settings.scratch_folder),
        slopes_(batches_.size(), budget_, settings.scratch_folder),
        inputs_(
            (blocks_ + 1) * batches_.size(),
            budget_,
            settings.scratch_folder),
        outer_(load_outer(model, model.dtype)),
        low_outer_(outer_) {
    for (const BlockSpec& block : model.spec.blocks) {
      for (const ModuleSpec& module : list_modules(block)) {
        modules_.emplace(module.path, module);
      }
    }
    for (const auto& batch : batches_) {
      tokens_ += batch.count;
    }
    require_finite(model, outer_);
    low_outer_.embedding.dense =
        round_weight(*outer_.embedding.dense, settings.low);
    mx::eval(*low_outer_.embedding.dense);
    if (model.spec.head) {
      low_outer_.head.dense = round_weight(*outer_.head.dense, settings.low);
    } else {
      low_outer_.head = low_outer_.embedding;
    }
  }

  Sensitivities run() {
    for (size_t i = 0; i < batches_.size(); ++i) {
      full_.put(i, embed(outer_, batches_[i].tokens));
      inputs_.put(i, embed(low_outer_, batches_[i].tokens));
    }
    for (const BlockSpec& block : model_.spec.blocks) {
      forward(block);
    }
    through_head();
    for (size_t i = blocks_; i-- > 0;) {
      backward(model_.spec.blocks[i]);
    }
    through_embedding();
    return std::move(result_);
  }

 private:
  void tick(size_t step) {
    report(
        progress_,
        {kWhere,
         static_cast<int64_t>(step),
         static_cast<int64_t>(2 * blocks_ + 2),
         "blocks",
         ""});
  }

  BlockWeights rounded(const BlockWeights& weights) const {
    auto low = weights;
    for (auto& [path, linear] : low.linears) {
      if (modules_.at(path).packable) {
        linear.dense = round_weight(*linear.dense, settings_.low);
      }
    }
    return low;
  }

  mx::array input(int block, size_t batch) const {
    return inputs_.get(static_cast<size_t>(block) * batches_.size() + batch);
  }

  void forward(const BlockSpec& spec) {
    tick(static_cast<size_t>(spec.index));
    const auto weights = load_block(model_, spec.index, model_.dtype);
    require_finite(weights);
    const auto low = rounded(weights);
    for (size_t i = 0; i < batches_.size(); ++i) {
      full_.put(i, run_block(spec, weights, full_.get(i), context_));
      inputs_.put(
          static_cast<size_t>(spec.index + 1) * batches_.size() + i,
          run_block(spec, low, input(spec.index, i), context_));
    }
  }

  mx::array
  head_rows(const OuterWeights& outer, const mx::array& x, size_t batch) const {
    return pick_tokens(
        batches_[batch], final_norm(model_.spec, outer, x, model_.dtype));
  }

  void through_head() {
    tick(blocks_);
    double loss = 0;
    for (size_t i = 0; i < batches_.size(); ++i) {
      const auto x = input(static_cast<int>(blocks_), i);
      const auto kl = ops::kl_head(
          {head_rows(low_outer_, x, i),
           *low_outer_.head.dense,
           low_outer_.head.bias},
          ops::HeadRows{
              head_rows(outer_, full_.get(i), i),
              *outer_.head.dense,
              outer_.head.bias},
          {.cap = outer_.logit_cap,
           .reference_cap = outer_.logit_cap,
           .factor = 1.0f / static_cast<float>(tokens_)},
          true);
      const auto rows = [&](const std::vector<mx::array>& in) {
        return std::vector<mx::array>{head_rows(low_outer_, in[0], i)};
      };
      slopes_.put(
          i, mx::vjp(rows, {x}, {mx::astype(kl.dx, model_.dtype)}).second[0]);
      // Into fresh memory: a part of the op's one result keeps all of it.
      head_gradient_ = head_gradient_
          ? ops::accumulate(*head_gradient_, *kl.dweight)
          : mx::contiguous(*kl.dweight);
      const auto sum = mx::sum(kl.loss);
      mx::eval({*head_gradient_, sum});
      loss += static_cast<double>(sum.item<float>());
    }
    result_.loss = loss / static_cast<double>(tokens_);
    if (model_.spec.head) {
      add(model_.spec.head->path,
          *outer_.head.dense,
          *low_outer_.head.dense,
          *head_gradient_);
      head_gradient_.reset();
    }
  }

  void backward(const BlockSpec& spec) {
    tick(2 * blocks_ - static_cast<size_t>(spec.index));
    const auto weights = load_block(model_, spec.index, model_.dtype);
    auto low = rounded(weights);
    std::vector<mx::array> dense;
    std::vector<std::string> paths;
    for (const auto& [path, linear] : low.linears) {
      dense.push_back(*linear.dense);
      paths.push_back(path);
    }
    mx::eval(dense);
    std::map<std::string, std::optional<mx::array>> sums;
    for (size_t i = 0; i < batches_.size(); ++i) {
      auto gradients = block_gradients(
          spec, low, paths, input(spec.index, i), slopes_.get(i), context_);
      for (const auto& [path, gradient] : gradients.weights) {
        add_to(sums[path], gradient);
      }
      std::vector<mx::array> wanted{gradients.x};
      for (const auto& [path, sum] : sums) {
        wanted.push_back(*sum);
      }
      gradients.weights.clear();
      mx::eval(wanted);
      slopes_.put(i, gradients.x);
    }
    for (const auto& [path, sum] : sums) {
      add(path,
          *weights.linears.at(path).dense,
          *low.linears.at(path).dense,
          *sum);
    }
  }

  // Of each token's row the slopes of where it stood, and what the head adds.
  void through_embedding() {
    tick(2 * blocks_ + 1);
    const auto& table = *outer_.embedding.dense;
    auto gradient = head_gradient_.value_or(mx::zeros(table.shape()));
    gradient = mx::contiguous(gradient);
    mx::eval(gradient);
    auto* sums = gradient.data<float>();
    const auto width = static_cast<size_t>(table.shape(1));
    for (size_t i = 0; i < batches_.size(); ++i) {
      auto slopes = mx::contiguous(slopes_.get(i));
      auto tokens = mx::contiguous(batches_[i].tokens);
      mx::eval({slopes, tokens});
      const auto* from = slopes.data<float>();
      for (size_t j = 0; j < tokens.size(); ++j, from += width) {
        auto* to =
            sums + static_cast<size_t>(tokens.data<int32_t>()[j]) * width;
        for (size_t k = 0; k < width; ++k) {
          to[k] += outer_.embedding_scale * from[k];
        }
      }
    }
    add(model_.spec.embedding, table, *low_outer_.embedding.dense, gradient);
  }

  void add(
      const std::string& path,
      const mx::array& weight,
      const mx::array& low,
      const mx::array& gradient) {
    auto candidates = settings_.candidates;
    for (auto& candidate : candidates) {
      if (candidate && !fits(*candidate, weight.shape(1))) {
        candidate.reset();  // not asked about later
      }
    }
    candidates.push_back(std::nullopt);
    candidates.push_back(
        fits(settings_.low, weight.shape(1)) ? Candidate(settings_.low)
                                             : std::nullopt);
    auto effects = rounding_effects(weight, low, gradient, candidates);
    ModuleSensitivity own;
    own.parameters = static_cast<int64_t>(weight.size());
    own.low_error = effects.back().error;
    effects.pop_back();
    own.whole = effects.back().alignment;
    effects.pop_back();
    own.effects = std::move(effects);
    const auto module = modules_.find(path);
    keep(module == modules_.end() ? path : module->second.home, own);
  }

  // Parts of a stack are rounded alike, and so counted together.
  void keep(const std::string& home, const ModuleSensitivity& own) {
    const auto [it, first] = result_.modules.emplace(home, own);
    if (first) {
      return;
    }
    auto& sum = it->second;
    sum.parameters += own.parameters;
    sum.whole += own.whole;
    sum.low_error += own.low_error;
    for (size_t i = 0; i < own.effects.size(); ++i) {
      sum.effects[i].alignment += own.effects[i].alignment;
      sum.effects[i].error += own.effects[i].error;
    }
  }

  const Model& model_;
  const SensitivitySettings& settings_;
  const ProgressFn& progress_;
  ForwardContext context_;
  std::map<std::string, ModuleSpec> modules_;  // of the blocks
  std::vector<TokenBatch> batches_;
  size_t blocks_;
  MemoryBudget budget_;
  ActivationStore full_;    // the full model's residual stream
  ActivationStore slopes_;  // the loss by the rounded one's
  ActivationStore inputs_;  // of each block and batch
  OuterWeights outer_;
  OuterWeights low_outer_;
  int64_t tokens_ = 0;
  std::optional<mx::array> head_gradient_;
  Sensitivities result_;
};

}  // namespace

Sensitivities measure_sensitivities(
    const Model& model,
    const std::vector<std::vector<int32_t>>& sequences,
    const SensitivitySettings& settings,
    const ProgressFn& progress) {
  return Pass(model, sequences, settings, progress).run();
}

}  // namespace pennyweight
