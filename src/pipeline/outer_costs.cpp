#include "pipeline/outer_costs.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <limits>
#include <map>
#include <memory>

#include "calibration/floats.h"
#include "core/error.h"
#include "method/rounding_loss.h"
#include "model/decoder.h"
#include "ops/kl_head.h"
#include "pipeline/outer_fit.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "costs";

class OuterPass {
 public:
  OuterPass(
      const OuterView& view,
      const CostSettings& settings,
      const ProgressFn& progress)
      : view_(view), settings_(settings), progress_(progress) {
    for (const auto& batch : view.batches) {
      if (tokens_ > 0 && tokens_ + batch.count > settings.outer_tokens) {
        break;
      }
      tokens_ += batch.count;
      ++measured_;
    }
  }

  std::vector<ModuleCosts> run() {
    std::vector<ModuleCosts> costs;
    const auto homes = list_homes(view_.model.spec);
    for (const ModuleSpec& module : homes) {
      if (module.block < 0) {
        total_ += int64_t(settings_.candidates.size());
      }
    }
    for (const ModuleSpec& module : homes) {
      if (module.block < 0) {
        try {
          costs.push_back({module.path, module.in * module.out, all(module)});
        } catch (const Error& error) {
          throw about(kWhere, module.path, error);
        }
      }
    }
    return costs;
  }

 private:
  mx::array head_rows(const mx::array& x, size_t batch) const {
    return pick_tokens(
        view_.batches[batch],
        final_norm(view_.model.spec, view_.outer, x, view_.model.dtype));
  }

  std::vector<float> head_gram() const {
    const int hidden = int(view_.model.spec.hidden);
    auto sum = mx::zeros({hidden, hidden});
    for (size_t i = 0; i < view_.batches.size(); ++i) {
      const auto x = head_rows(view_.output(i), i);
      sum = ops::gram_add(sum, {x}, x);
      mx::eval(sum);
    }
    return to_vector(sum);
  }

  std::vector<double> all(const ModuleSpec& module) {
    GptqOptions options;
    options.rounds = 0;
    std::optional<OuterRounding> rounding(
        std::in_place,
        view_.model,
        module,
        is_head(module) ? head_gram() : std::vector<float>(),
        options);
    std::vector<int> widths;
    std::vector<double> shares, losses;
    for (const int bits : settings_.gptq_bits) {
      if (const auto spec = gptq_candidate(bits, module.in)) {
        const auto rounded = rounding->round(*spec);
        by_gptq_.insert_or_assign(
            bits, std::pair(*spec, loss(module, rounded.weight)));
        widths.push_back(bits);
        shares.push_back(rounded.loss_share);
      }
    }
    rounding.reset();
    for (const auto& candidate : settings_.candidates) {
      report(progress_, {kWhere, done_++, total_, "outer roundings"});
      if (!candidate) {
        losses.push_back(0);
      } else if (!fits(*candidate, module.in)) {
        losses.push_back(std::numeric_limits<double>::quiet_NaN());
      } else {
        losses.push_back(of(module, *candidate, widths, shares));
      }
    }
    by_gptq_.clear();
    return losses;
  }

  double of(
      const ModuleSpec& module,
      const QuantSpec& spec,
      const std::vector<int>& widths,
      const std::vector<double>& shares) const {
    const auto at = closest_width(widths, spec.bits);
    if (at && by_gptq_.at(widths[*at]).first == spec) {
      return by_gptq_.at(widths[*at]).second;
    }
    const auto& linear = module.kind == ModuleSpec::Kind::head
        ? view_.outer.head
        : view_.outer.embedding;
    return loss(module, quantize(*linear.dense, spec)) * (at ? shares[*at] : 1);
  }

  /// The mean KL with `weight` in the module's place.
  double loss(const ModuleSpec& module, const ops::QuantizedWeight& weight)
      const {
    auto outer = view_.outer;
    auto dense = ops::dequantize(weight, view_.model.dtype);
    mx::eval(dense);
    const bool embeds = module.kind != ModuleSpec::Kind::head;
    if (embeds) {
      outer.embedding.dense = dense;
    }
    if (is_head(module)) {
      outer.head.dense = dense;
    }
    double sum = 0;
    const auto states = embeds ? forward(outer) : std::vector<mx::array>();
    for (size_t i = 0; i < measured_; ++i) {
      const auto full = view_.output(i);
      const auto kl = ops::kl_head(
          {head_rows(embeds ? states[i] : full, i),
           *outer.head.dense,
           outer.head.bias},
          ops::HeadRows{
              head_rows(full, i),
              *view_.outer.head.dense,
              view_.outer.head.bias},
          {.cap = outer.logit_cap, .reference_cap = outer.logit_cap},
          false);
      sum += double(mx::sum(kl.loss).item<float>());
    }
    return sum / double(tokens_);
  }

  std::vector<mx::array> forward(const OuterWeights& outer) const {
    std::vector<mx::array> states;
    for (size_t i = 0; i < measured_; ++i) {
      states.push_back(embed(outer, view_.batches[i].tokens));
      mx::eval(states.back());
    }
    const ForwardContext context{.dtype = view_.model.dtype};
    for (const BlockSpec& block : view_.model.spec.blocks) {
      const auto weights = load_block(
          view_.model, block.index, view_.model.dtype, PackedWeights::expand);
      for (mx::array& state : states) {
        state = run_block(block, weights, state, context);
        mx::eval(state);
      }
    }
    return states;
  }

  const OuterView& view_;
  const CostSettings& settings_;
  const ProgressFn& progress_;
  size_t measured_ = 0;  // batches
  int64_t tokens_ = 0;   // of them
  int64_t done_ = 0;
  int64_t total_ = 0;
  std::map<int, std::pair<QuantSpec, double>> by_gptq_;  // by bits
};

}  // namespace

std::vector<ModuleCosts> measure_outer_costs(
    const OuterView& view,
    const CostSettings& settings,
    const ProgressFn& progress) {
  return OuterPass(view, settings, progress).run();
}

}  // namespace pennyweight
