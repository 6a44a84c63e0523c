#include "method/widths/sensitivity.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <utility>

#include "method/packed_block.h"
#include "method/widths/effect_sums.h"
#include "model/finite.h"
#include "model/gradients.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"
#include "ops/kl_head.h"
#include "ops/rounding/quantize.h"
#include "pass/model_pass.h"

namespace pennyweight {

namespace {

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
        batches_(make_token_batches(
            sequences,
            model.spec.vocab,
            settings.batch_tokens)),
        blocks_(model.spec.blocks.size()),
        budget_{settings.activation_bytes},
        full_(
            model,
            batches_,
            {.dtype = model.dtype, .scratch_folder = settings.scratch_folder},
            budget_),
        low_(
            model,
            batches_,
            {.dtype = model.dtype,
             .scratch_folder = settings.scratch_folder,
             .keep_inputs = true},
            budget_),
        brought_(
            model.spec.token_inputs ? batches_.size() * blocks_ : 0,
            budget_,
            settings.scratch_folder),
        tables_(load_embedding_and_head(model, model.dtype)),
        low_tables_(tables_),
        sums_(settings) {
    for (const BlockSpec& block : model.spec.blocks) {
      for (const ModuleSpec& module : list_modules(block)) {
        modules_.emplace(module.path, module);
      }
    }
    tokens_ = low_.tokens();
    require_finite(model, tables_);
    const auto round = [&](VocabTable& table) {
      if (fits(settings.low, table.width())) {
        table = table.with_packed(quantize(table, settings.low));
      }
    };
    if (low_tables_.token) {
      round(low_tables_.token->table);
      round(low_tables_.token->projection);
    }
    low_tables_.rounded = true;
    round(low_tables_.embedding);
    if (model.spec.head) {
      round(low_tables_.head);
    } else {
      low_tables_.head = low_tables_.embedding;
    }
  }

  Sensitivities run() {
    full_.embed(&tables_);
    low_.embed(&low_tables_);
    low_.forward([&](const BlockSpec& block) {
      tick(static_cast<size_t>(block.index));
      const auto weights = full_.load(block);
      full_.step(block, weights);
      return rounded(weights);
    });
    through_head();
    low_.backward([&](const BlockSpec& block) { backward(block); });
    through_embedding();
    result_.modules = sums_.take();
    return std::move(result_);
  }

 private:
  void tick(size_t step) {
    report(
        progress_,
        {"dynamic-quant",
         static_cast<int64_t>(step),
         static_cast<int64_t>(2 * blocks_ + 2),
         "blocks",
         ""});
  }

  BlockWeights rounded(const BlockWeights& weights) const {
    auto low = weights;
    for (auto& [path, linear] : low.linears) {
      const auto& module = modules_.at(path);
      if (module.packable && !module.published) {
        linear.dense = round_weight(*linear.dense, settings_.low);
      }
    }
    return low;
  }

  /// Batches whose rows go through the head together: with more of them the
  /// head is rounded to the candidates less often.
  size_t group_end(size_t begin) const {
    constexpr int64_t kBytes = int64_t{128} << 20;
    const int64_t most = kBytes / (8 * model_.spec.hidden);
    int64_t rows = batches_[begin].count;
    size_t end = begin + 1;
    while (end < batches_.size() && rows + batches_[end].count <= most) {
      rows += batches_[end++].count;
    }
    return end;
  }

  void through_head() {
    tick(blocks_);
    double loss = 0;
    for (size_t begin = 0; begin < batches_.size();) {
      const size_t end = group_end(begin);
      loss += group_through_head(begin, end);
      begin = end;
    }
    result_.loss = loss / static_cast<double>(tokens_);
    if (model_.spec.head) {
      keep_table(tables_.head, head_effects_);
    }
  }

  double group_through_head(size_t begin, size_t end) {
    std::vector<mx::array> full, low;
    for (size_t i = begin; i < end; ++i) {
      full.push_back(full_.head_rows(tables_, i));
      low.push_back(low_.head_rows(low_tables_, i));
      mx::eval(full.back(), low.back());
    }
    const auto kl = ops::kl_head(
        low_tables_.head.head(mx::concatenate(low, 0), tables_.logit_cap),
        tables_.head.head(mx::concatenate(full, 0), tables_.logit_cap),
        {.factor = 1.0f / static_cast<float>(tokens_)},
        [&](int first, int count, const mx::array& gradient) {
          sums_.add(
              *tables_.head.dense_rows(first, count).dense,
              *low_tables_.head.dense_rows(first, count).dense,
              gradient,
              begin == 0,
              head_effects_);
        });
    int row = 0;
    for (size_t i = begin; i < end; ++i) {
      const int count = static_cast<int>(batches_[i].count);
      low_.head_back(
          low_tables_,
          i,
          mx::slice(kl.dx, {row, 0}, {row + count, kl.dx.shape(1)}));
      row += count;
    }
    return static_cast<double>(mx::sum(kl.loss).item<float>());
  }

  void backward(const BlockSpec& spec) {
    tick(2 * blocks_ - static_cast<size_t>(spec.index));
    const auto weights = full_.load(spec);
    const auto low = rounded(weights);
    std::vector<mx::array> dense;
    std::vector<std::string> paths;
    for (const auto& [path, linear] : low.linears) {
      if (linear.dense) {  // else published packed
        dense.push_back(*linear.dense);
        paths.push_back(path);
      }
    }
    mx::eval(dense);
    std::map<std::string, std::optional<mx::array>> sums;
    low_.back(spec, [&](size_t batch, const mx::array& x, const mx::array& dy) {
      auto gradients = block_gradients(spec, low, paths, x, dy, low_.context());
      for (const auto& [path, gradient] : gradients.weights) {
        add_to(sums[path], gradient);
      }
      std::vector<mx::array> wanted{gradients.x};
      for (const auto& [path, sum] : sums) {
        wanted.push_back(*sum);
      }
      gradients.weights.clear();
      mx::eval(wanted);
      if (spec.token_gate) {
        brought_.put(
            batch * blocks_ + static_cast<size_t>(spec.index),
            token_input_of(spec, gradients.x));
      }
      return gradients.x;
    });
    for (const auto& [path, sum] : sums) {
      add(path,
          *weights.linears.at(path).dense,
          *low.linears.at(path).dense,
          *sum);
    }
  }

  // Of each token's row the gradients of where it stood, and what the head
  // adds: alignments are sums over rows.
  void through_embedding() {
    tick(2 * blocks_ + 1);
    const auto& table = tables_.embedding;
    auto effects = model_.spec.head ? Effects() : head_effects_;
    if (model_.spec.head) {
      add_table_errors(table, low_tables_.embedding, effects);
    }
    TokenEffects brought;
    for (size_t i = 0; i < batches_.size(); ++i) {
      const auto tokens = mx::flatten(batches_[i].tokens);
      auto gradient = low_.gradient(i);
      if (tables_.token) {
        gradient = mx::add(gradient, through_token_inputs(i, brought));
      }
      sums_.add(
          mx::astype(table.take(tokens, true), model_.dtype),
          low_tables_.embedding.take(tokens, true),
          mx::multiply(
              mx::flatten(gradient, 0, 1), mx::array(tables_.embedding_scale)),
          false,
          effects);
    }
    keep_table(table, effects);
    if (tables_.token) {
      keep_token_tables(brought);
    }
  }

  /// What rounding the token inputs' table and projection does so far.
  struct TokenEffects {
    Effects table;
    std::optional<mx::array> projection;  // gradient
  };

  // As through the embedding, for what a batch's tokens bring to all blocks:
  // gives the gradient by their embeddings.
  mx::array through_token_inputs(size_t batch, TokenEffects& effects) const {
    std::vector<mx::array> by_blocks;
    for (size_t b = 0; b < blocks_; ++b) {
      by_blocks.push_back(brought_.get(batch * blocks_ + b));
    }
    const auto tokens = mx::flatten(batches_[batch].tokens);
    const auto found = token_gradients(
        low_tables_,
        embed(low_tables_, batches_[batch].tokens),
        mx::concatenate(by_blocks, -1),
        model_.dtype);
    const auto& table = tables_.token->table;
    sums_.add(
        mx::astype(table.take(tokens, true), model_.dtype),
        low_tables_.token->table.take(tokens, true),
        found.rows,
        false,
        effects.table);
    add_to(effects.projection, found.projection);
    mx::eval(*effects.projection);
    return found.x;
  }

  void keep_token_tables(TokenEffects& effects) {
    const auto& token = *tables_.token;
    const auto& low = *low_tables_.token;
    const int rows = token.projection.vocab();
    add_table_errors(token.table, low.table, effects.table);
    keep_table(token.table, effects.table);
    Effects projection;
    sums_.add(
        *token.projection.dense_rows(0, rows).dense,
        *low.projection.dense_rows(0, rows).dense,
        *effects.projection,
        true,
        projection);
    keep_table(token.projection, projection);
  }

  void add_table_errors(
      const VocabTable& table,
      const VocabTable& low,
      Effects& effects) const {
    each_rows(table.vocab(), [&](int first, int count) {
      const auto rows = *table.dense_rows(first, count).dense;
      sums_.add(
          rows,
          *low.dense_rows(first, count).dense,
          mx::zeros(rows.shape()),
          true,
          effects);
    });
  }

  void keep_table(const VocabTable& table, const Effects& effects) {
    sums_.keep(table.path(), int64_t{table.vocab()} * table.width(), effects);
  }

  void add(
      const std::string& path,
      const mx::array& weight,
      const mx::array& low,
      const mx::array& gradient) {
    Effects effects;
    sums_.add(weight, low, gradient, true, effects);
    sums_.keep(
        modules_.at(path).stored,
        static_cast<int64_t>(weight.size()),
        std::move(effects));
  }

  const Model& model_;
  const SensitivitySettings& settings_;
  const ProgressFn& progress_;
  std::map<std::string, ModuleSpec> modules_;  // of the blocks
  std::vector<TokenBatch> batches_;
  size_t blocks_;
  MemoryBudget budget_;
  ModelPass full_;           // of the full model
  ModelPass low_;            // of the rounded one, and back through it
  ActivationStore brought_;  // gradients by what tokens bring, batch by batch
  EmbeddingAndHead tables_;
  EmbeddingAndHead low_tables_;
  int64_t tokens_ = 0;
  Effects head_effects_;
  EffectSums sums_;
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
