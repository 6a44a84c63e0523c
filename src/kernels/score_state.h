#pragma once

namespace pennyweight::kernels {

/// What a row of scoring state (see ops::score_start) holds, where c are the
/// scored model's logits and r the reference's, over the columns seen so far.
enum ScoreColumn {
  kScoreMax = 0,  // m_c = max c
  kScoreSum,      // sum exp(c - m_c)
  kScoreSumLow,   // what rounding that to float32 has lost
  kScoreArgmax,   // first column where c = m_c
  kScoreTarget,   // c[target]
  kScoreRefMax,   // m_r, and so on for r
  kScoreRefSum,
  kScoreRefSumLow,
  kScoreRefArgmax,
  kScoreRefTarget,
  kScoreDifference,  // sum exp(r - m_r) (r - c)
  kScoreDifferenceLow,
  kScoreHasReference,  // 1 once a reference has been seen
  kScoreColumns,
};

}  // namespace pennyweight::kernels
