#include "run/time/block_rates.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <filesystem>

#include "method/widths/cost_sums.h"
#include "model/finite.h"
#include "model/gradients.h"
#include "model/stream/columns.h"
#include "ops/evaluated.h"
#include "ops/rounding/quantize.h"
#include "pass/block_stream.h"
#include "run/block_task.h"
#include "run/method_run.h"

namespace pennyweight {

namespace {

const QuantSpec kTypical{"affine", 4, 64};

mx::array
embedded(const EmbeddingAndHead& tables, const TokenBatch& batch, int columns) {
  return evaluated(padded_input(embed(tables, batch.tokens), columns));
}

}  // namespace

BlockProbe::BlockProbe(
    const Model& model,
    const BlockSpec& spec,
    const std::vector<TokenBatch>& batches,
    const EmbeddingAndHead& tables,
    RateSampler& sampler)
    : model_(model),
      spec_(spec),
      batches_(batches),
      tables_(tables),
      sampler_(sampler),
      context_{.dtype = model.dtype},
      weights_(
          load_block(model, spec.index, model.dtype, PackedWeights::expand)),
      x_(embedded(tables, batches.front(), input_columns(spec))),
      dy_(embedded(tables, batches.front(), given_columns(spec))) {
  for (const ModuleSpec& module : list_modules(spec)) {
    const auto& linear = weights_.linears.at(module.path);
    if (module.packable && !module.published && fits(kTypical, module.in)) {
      auto packed = quantize(*linear.dense, kTypical);
      mx::eval(packed.codes, packed.scales, *packed.biases);
      packed_.emplace(module.path, std::move(packed));
    }
  }
}

BlockRates BlockProbe::measure(std::map<int64_t, WidthSample>& widths) {
  BlockRates rates;
  const auto tokens = double(batches_.front().count);
  rates.load = sampler_.seconds([&] {
    require_finite(
        load_block(model_, spec_.index, model_.dtype, PackedWeights::expand));
  });
  rates.forward = sampler_.seconds([&] {
    mx::eval(run_block(spec_, weights_, x_, context_));
  }) / tokens;
  CostSums sums(spec_);
  rates.costs = sampler_.seconds([&] {
    sums.add(weights_, batches_.front(), x_, dy_, context_);
  }) / tokens;
  measure_walk(rates, widths);
  measure_gradients(rates);
  measure_generation(rates);
  return rates;
}

void BlockProbe::measure_walk(
    BlockRates& rates,
    std::map<int64_t, WidthSample>& widths) {
  const auto plan = plan_modules(model_, kTypical, kTypical, kTypical);
  std::vector<double> sums;
  rates.walk = sampler_.seconds_of([&] {
    MemoryBudget budget{int64_t{1} << 30};
    StreamSettings settings{
        model_.dtype, std::filesystem::temp_directory_path(), false};
    BlockStream full(batches_, settings, budget);
    settings.keep_start = true;
    BlockStream quantized(batches_, settings, budget);
    full.embed_for(spec_, tables_);
    quantized.embed_for(spec_, tables_);
    const auto found = spec_.moe ? walk_experts(plan, full, quantized, widths)
                                 : walk(plan, full, quantized, widths);
    sums.push_back(found.sums);
    return found.batch;
  });
  rates.walk =
      std::max(rates.walk / double(batches_.back().count), 2 * rates.forward);
  rates.walk_sums = sums.back();
}

// What the second batch takes goes with the text; the first has the sums made,
// too.
BlockProbe::Walk BlockProbe::walk(
    const QuantPlan& plan,
    BlockStream& full,
    BlockStream& quantized,
    std::map<int64_t, WidthSample>& widths) {
  full.enter(spec_, weights_);
  quantized.enter(spec_, weights_);
  const size_t last = batches_.size() - 1;
  Walk result;
  size_t next = 0;
  const auto advance = [&](size_t batch) {
    full.advance(next, batch);
    quantized.advance(next, batch);
  };
  for (const LinearGroup& group : list_groups(spec_, plan)) {
    const ModuleSpec& module = group.modules.front();
    std::optional<StatisticsSum> sum;
    result.sums += RateSampler::once(
        [&] { sum.emplace(start_statistics(spec_, module, true, false)); });
    std::vector<double> seconds(batches_.size());
    const size_t from = next;
    for (size_t i = 0; i < batches_.size(); ++i) {
      seconds[i] = RateSampler::once([&] {
        for (next = from; next <= group.step; ++next) {
          advance(i);
        }
        add_statistics(quantized, &full, batches_[i], i, module, *sum);
      });
    }
    result.batch += seconds[last];
    std::optional<InputStatistics> found;
    result.sums += std::max(0.0, seconds.front() - seconds[last]) +
        RateSampler::once([&] { found = sum->finish(std::nullopt); });
    widths.try_emplace(
        module.in,
        WidthSample{*weights_.linears.at(module.path).dense, *found});
  }
  const size_t steps = block_steps(spec_).size();
  for (size_t i = 0; i < batches_.size(); ++i) {
    const double seconds = RateSampler::once([&] {
      for (size_t step = next; step < steps; ++step) {
        full.advance(step, i);
        quantized.advance(step, i);
      }
      full.finish(i);
      quantized.finish(i);
    });
    result.batch += i == last ? seconds : 0;
  }
  return result;
}

// A walk's task knows how tokens go to experts, and how many sums it holds.
BlockProbe::Walk BlockProbe::walk_experts(
    const QuantPlan& plan,
    BlockStream& full,
    BlockStream& quantized,
    std::map<int64_t, WidthSample>& widths) {
  const ProcessGroup alone;
  const ProgressFn silent;
  WalkTask task(
      {"plan",
       model_,
       plan,
       alone,
       batches_,
       batches_.size(),
       false,
       full,
       &quantized,
       silent},
      spec_);
  double seconds = 0;
  for (const LinearGroup& group : task.groups()) {
    std::optional<InputStatistics> found;
    seconds += RateSampler::once(
        [&] { found = task.statistics(group, {.shifts = true}); });
    for (const ModuleSpec& module : group.modules) {
      widths.try_emplace(
          module.in,
          WidthSample{*weights_.linears.at(module.path).dense, *found});
      task.set(module.path, packed_.at(module.path));
    }
  }
  seconds += RateSampler::once([&] { task.finish(); });
  return {seconds / double(batches_.size()), 0};
}

void BlockProbe::measure_gradients(BlockRates& rates) {
  std::vector<std::string> paths;
  auto expanded = weights_;
  const auto expand = [&] {
    paths.clear();
    for (const auto& [path, packed] : packed_) {
      auto dense = evaluated(ops::dequantize(packed, model_.dtype));
      expanded.linears.at(path).dense = std::move(dense);
      paths.push_back(path);
    }
  };
  const auto tokens = double(batches_.front().count);
  expand();
  rates.learn = sampler_.seconds([&] {
    auto found = loss_gradients(
        spec_,
        expanded,
        paths,
        x_,
        [](const mx::array& y) { return mx::sum(mx::square(y)); },
        context_);
    std::vector<mx::array> wanted{found.loss};
    for (const auto& [path, gradient] : found.weights) {
      wanted.push_back(gradient);
    }
    mx::eval(wanted);
  }) / tokens;
  // As Distiller does it: forward and back, from packed weights both times.
  rates.distil = sampler_.seconds([&] {
    expand();
    mx::eval(run_block(spec_, expanded, x_, context_));
    expand();
    auto made = block_gradients(spec_, expanded, paths, x_, dy_, context_);
    std::vector<mx::array> wanted{made.x};
    for (const auto& [path, dense] : made.weights) {
      auto own = ops::group_gradients(packed_.at(path), dense);
      wanted.insert(wanted.end(), {own.scales, own.biases});
    }
    made.weights.clear();
    mx::eval(wanted);
  }) / tokens;
}

void BlockProbe::measure_generation(BlockRates& rates) {
  constexpr int kPrompts = 3;
  const int columns = x_.shape(-1);
  auto x = evaluated(mx::contiguous(mx::reshape(
      mx::slice(mx::reshape(x_, {-1, columns}), {0, 0}, {kPrompts, columns}),
      {kPrompts, 1, columns})));
  rates.next = sampler_.seconds([&] {
    const auto weights = load_block(model_, spec_.index, model_.dtype);
    mx::eval(run_block(spec_, weights, x, context_));
  });
  auto packed = weights_;
  for (const auto& [path, own] : packed_) {
    packed.linears.at(path).dense.reset();
    packed.linears.at(path).packed = own;
  }
  rates.next_packed = sampler_.seconds(
      [&] { mx::eval(run_block(spec_, packed, x, context_)); });
}

}  // namespace pennyweight
