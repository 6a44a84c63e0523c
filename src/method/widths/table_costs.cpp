#include "method/widths/table_costs.h"

#include <mlx/memory.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "core/error.h"
#include "method/gptq/table_fit.h"
#include "method/learned/rounding_loss.h"
#include "model/decoder.h"
#include "model/finite.h"
#include "ops/kl_head.h"
#include "ops/rounding/quantize.h"
#include "pass/floats.h"

namespace pennyweight {

namespace {

class TableCosts {
 public:
  TableCosts(
      const FullPass& view,
      const CostSettings& settings,
      const ProgressFn& progress)
      : view_(view), settings_(settings), progress_(progress) {
    for (const auto& batch : view.pass.batches()) {
      if (tokens_ > 0 && tokens_ + batch.count > settings.table_tokens) {
        break;
      }
      tokens_ += batch.count;
      ++measured_;
    }
  }

  std::vector<ModuleCosts> run() {
    std::vector<ModuleCosts> costs;
    const auto stored = list_stored_modules(view_.model.spec);
    for (const ModuleSpec& module : stored) {
      if (module.block < 0) {
        total_ += int64_t(settings_.gptq_bits.size());
      }
    }
    for (const ModuleSpec& module : stored) {
      if (module.block < 0) {
        try {
          costs.push_back({module.path, module.in * module.out, all(module)});
        } catch (const Error& error) {
          throw about("costs", module.path, error);
        }
      }
    }
    return costs;
  }

 private:
  std::vector<float> head_gram() const {
    const int hidden = int(view_.model.spec.hidden);
    auto sum = mx::zeros({hidden, hidden});
    for (size_t i = 0; i < view_.pass.batches().size(); ++i) {
      const auto x = view_.pass.head_rows(view_.tables, i);
      sum = ops::gram_add(sum, {x}, x);
      mx::eval(sum);
    }
    return to_vector(sum);
  }

  std::vector<double> all(const ModuleSpec& module) {
    GptqOptions options;
    options.rounds = 0;
    options.figures = false;
    auto gram = is_head(module) ? head_gram() : std::vector<float>();
    const auto seen = input_weights(module, gram);
    const TableRounding rounding(view_.model, module, std::move(gram), options);
    std::vector<LossPoint> points;
    for (const int bits : settings_.gptq_bits) {
      report(progress_, {"costs", done_++, total_, "roundings"});
      if (const auto spec = gptq_candidate(bits, module.in)) {
        points.push_back({*spec, loss(module, rounding.round(*spec).weight)});
        mx::clear_cache();  // the next width's arrays are of other sizes
      }
    }
    return spread_losses(
        points, settings_.candidates, module.in, [&](const QuantSpec& spec) {
          return nearest(module, spec, points.empty(), seen);
        });
  }

  /// What each column's errors count, as head and as embedding.
  static std::vector<float> input_weights(
      const ModuleSpec& module,
      const std::vector<float>& gram) {
    const auto in = static_cast<size_t>(module.in);
    std::vector<float> weights(in, 1.0f);
    double mean = 0;
    for (size_t i = 0; i < in && !gram.empty(); ++i) {
      weights[i] = gram[i * (in + 1)];
      mean += double(weights[i]) / double(in);
    }
    for (float& weight : weights) {
      weight += module.tied ? float(kTiedShare * mean) : 0.0f;
    }
    return weights;
  }

  /// Of rounding to nearest the KL, or what is proportional to it.
  double nearest(
      const ModuleSpec& module,
      const QuantSpec& spec,
      bool measured,
      const std::vector<float>& seen) const {
    auto tables = view_.tables;
    const auto& table = tables.table(module.path);
    if (measured) {
      return loss(module, quantize(table, spec));
    }
    double sum = 0;
    each_rows(table.vocab(), [&](int first, int count) {
      sum += nearest_loss(
          mx::contiguous(*table.dense_rows(first, count).dense),
          spec,
          seen,
          std::vector<float>(size_t(count), 1.0f));
    });
    return sum;
  }

  /// The mean KL with `weight` in the module's place.
  double loss(const ModuleSpec& module, const ops::QuantizedWeight& weight)
      const {
    auto tables = view_.tables;
    tables.rounded = true;
    const bool embeds = module.kind != ModuleSpec::Kind::head;
    auto& table = tables.table(module.path);
    table = table.with_packed(weight);
    if (is_head(module)) {
      tables.head = tables.head.with_packed(weight);
    }
    auto all = MemoryBudget::unlimited();
    const auto& batches = view_.pass.batches();
    ModelPass rounded(
        view_.model,
        {batches.begin(), batches.begin() + std::ptrdiff_t(measured_)},
        {.dtype = view_.model.dtype},
        all);
    if (embeds) {
      rounded.embed(&tables);
      // Their weights were found finite by the full model's pass.
      rounded.forward([&](const BlockSpec& block) {
        return load_block(
            view_.model, block.index, view_.model.dtype, PackedWeights::expand);
      });
    }
    double sum = 0;
    for (size_t i = 0; i < measured_; ++i) {
      const auto full = view_.pass.head_rows(view_.tables, i);
      const auto kl = ops::kl_loss(
          tables.head.head(
              embeds ? rounded.head_rows(tables, i) : full, tables.logit_cap),
          view_.tables.head.head(full, tables.logit_cap));
      sum += double(mx::sum(kl).item<float>());
    }
    return sum / double(tokens_);
  }

  const FullPass& view_;
  const CostSettings& settings_;
  const ProgressFn& progress_;
  size_t measured_ = 0;  // batches
  int64_t tokens_ = 0;   // of them
  int64_t done_ = 0;
  int64_t total_ = 0;
};

}  // namespace

std::vector<ModuleCosts> measure_table_costs(
    const FullPass& view,
    const CostSettings& settings,
    const ProgressFn& progress) {
  return TableCosts(view, settings, progress).run();
}

}  // namespace pennyweight
