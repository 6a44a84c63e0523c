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

/// A sum as the two columns from `column` on.
inline void store_sum(float* state, int column, double sum) {
  state[column] = float(sum);
  state[column + 1] = float(sum - double(state[column]));
}

inline double load_sum(const float* state, int column) {
  return double(state[column]) + double(state[column + 1]);
}

}  // namespace pennyweight::kernels
