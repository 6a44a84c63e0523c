#include "kernels/score_state.h"

#include <cmath>

#include "kernels/kernels.h"

namespace pennyweight::kernels {

void score_finish(const ScoreFinishArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    const float* s = args.state + i * args.state_stride;
    const double log_sum = std::log(load_sum(s, kScoreSum));
    const double nll = double(s[kScoreMax]) - s[kScoreTarget] + log_sum;
    double kl = 0, reference_nll = 0;
    bool agrees = true;
    if (s[kScoreHasReference] != 0) {
      const double ref_sum = load_sum(s, kScoreRefSum);
      const double ref_log_sum = std::log(ref_sum);
      reference_nll =
          double(s[kScoreRefMax]) - s[kScoreRefTarget] + ref_log_sum;
      kl = load_sum(s, kScoreDifference) / ref_sum +
          (double(s[kScoreMax]) - s[kScoreRefMax]) + (log_sum - ref_log_sum);
      agrees = s[kScoreArgmax] == s[kScoreRefArgmax];
    }
    args.out[i] = float(nll);
    args.out[args.rows + i] = float(kl);
    args.out[2 * args.rows + i] = float(reference_nll);
    args.out[3 * args.rows + i] = agrees ? 1.0f : 0.0f;
  }
}

}  // namespace pennyweight::kernels
