#include "method/widths/effect_sums.h"

namespace pennyweight {

std::vector<Candidate> EffectSums::asked(int64_t in) const {
  auto candidates = settings_.candidates;
  for (auto& candidate : candidates) {
    if (candidate && !fits(*candidate, in)) {
      candidate.reset();  // not asked about later
    }
  }
  candidates.push_back(std::nullopt);
  candidates.push_back(
      fits(settings_.low, in) ? Candidate(settings_.low) : std::nullopt);
  return candidates;
}

void EffectSums::add(
    const mx::array& weight,
    const mx::array& low,
    const mx::array& gradient,
    bool errors,
    Effects& sum) const {
  const auto effects =
      rounding_effects(weight, low, gradient, asked(weight.shape(1)));
  sum.resize(effects.size());
  for (size_t i = 0; i < effects.size(); ++i) {
    sum[i].alignment += effects[i].alignment;
    sum[i].error += errors ? effects[i].error : 0;
  }
}

void EffectSums::keep(
    const std::string& stored,
    int64_t parameters,
    Effects effects) {
  ModuleSensitivity own;
  own.parameters = parameters;
  own.low_error = effects.back().error;
  effects.pop_back();
  own.whole = effects.back().alignment;
  effects.pop_back();
  own.effects = std::move(effects);
  const auto [it, first] = modules_.emplace(stored, own);
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

}  // namespace pennyweight
