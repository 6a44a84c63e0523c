#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pennyweight {

/// A mean over tokens; the standard error is that of independent tokens,
/// sqrt(var / n) with var of n - 1 degrees of freedom.
struct Mean {
  double value = 0;
  double standard_error = 0;
};
Mean mean_of(const std::vector<float>& values);

/// The q-quantile (0 <= q <= 1) with linear interpolation between order
/// statistics, as numpy and torch define it. Reorders `values`; 0 if empty.
double quantile(std::vector<float>& values, double q);

/// exp of the mean negative log-likelihood, and its standard error by the
/// delta method, exp(mean) * se(mean), as mlx_lm.perplexity has it.
Mean perplexity_of(const std::vector<float>& nll);

/// KL(reference || model) over tokens, in nats.
struct KlSummary {
  Mean mean;
  double median = 0;
  double p99 = 0;
  double max = 0;
};
KlSummary summarize_kl(std::vector<float> kl);

/// Figures of every scored token, in no particular order.
struct TokenScores {
  std::vector<float> nll{};
  std::vector<float> reference_nll{};  // empty without a reference
  std::vector<float> kl{};             // likewise
  std::vector<float> agrees{};         // likewise; 1 where the argmax is equal
};

struct Evaluation {
  int64_t sequences = 0;
  int64_t tokens = 0;  // scored
  Mean perplexity;
  struct AgainstReference {
    Mean perplexity;  // the reference's own
    KlSummary kl;
    Mean top1;  // share of tokens with the reference's argmax
  };
  std::optional<AgainstReference> reference;
};

/// numeric Error when there is no token or a figure is not finite.
Evaluation summarize(TokenScores scores, int64_t sequences);

}  // namespace pennyweight
