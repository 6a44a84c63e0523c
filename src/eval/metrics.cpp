#include "eval/metrics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace pennyweight {

namespace {

void require_finite_scores(
    const std::vector<float>& values,
    const std::string& what) {
  auto bad = std::ranges::count_if(
      values, [](float value) { return !std::isfinite(value); });
  if (bad > 0) {
    throw numeric_error(
        "evaluate",
        what + " is not finite for " + std::to_string(bad) + " of " +
            std::to_string(values.size()) +
            " tokens; try --dtype float32, or the weights are damaged");
  }
}

}  // namespace

Mean mean_of(const std::vector<float>& values) {
  if (values.empty()) {
    return {};
  }
  double count = static_cast<double>(values.size());
  double sum = 0;
  for (float value : values) {
    sum += value;
  }
  double mean = sum / count;
  double squares = 0;
  for (float value : values) {
    squares += (value - mean) * (value - mean);
  }
  double variance = values.size() > 1 ? squares / (count - 1) : 0;
  return {mean, std::sqrt(variance / count)};
}

double quantile(std::vector<float>& values, double q) {
  if (values.empty()) {
    return 0;
  }
  double place = q * static_cast<double>(values.size() - 1);
  auto below = static_cast<size_t>(place);
  auto middle = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), middle, values.end());
  double low = *middle;
  if (middle + 1 == values.end()) {
    return low;
  }
  double high = *std::min_element(middle + 1, values.end());
  return low + (high - low) * (place - static_cast<double>(below));
}

Mean perplexity_of(const std::vector<float>& nll) {
  auto mean = mean_of(nll);
  double perplexity = std::exp(mean.value);
  return {perplexity, perplexity * mean.standard_error};
}

KlSummary summarize_kl(std::vector<float> kl) {
  KlSummary summary;
  if (kl.empty()) {
    return summary;
  }
  summary.mean = mean_of(kl);
  summary.max = *std::ranges::max_element(kl);
  summary.median = quantile(kl, 0.5);
  summary.p99 = quantile(kl, 0.99);
  return summary;
}

Evaluation summarize(TokenScores scores, int64_t sequences) {
  if (scores.nll.empty()) {
    throw argument_error(
        "evaluate",
        "the data holds no token to predict; give longer sequences");
  }
  require_finite_scores(scores.nll, "the model's log-likelihood");
  require_finite_scores(scores.reference_nll, "the reference's log-likelihood");
  require_finite_scores(scores.kl, "the KL to the reference");
  Evaluation result;
  result.sequences = sequences;
  result.tokens = static_cast<int64_t>(scores.nll.size());
  result.perplexity = perplexity_of(scores.nll);
  if (!scores.reference_nll.empty()) {
    result.reference.emplace();
    result.reference->perplexity = perplexity_of(scores.reference_nll);
    result.reference->kl = summarize_kl(std::move(scores.kl));
    result.reference->top1 = mean_of(scores.agrees);
  }
  return result;
}

}  // namespace pennyweight
