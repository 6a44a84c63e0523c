#pragma once

/// Columns of a row of scoring state (see ops::score_start). With c the
/// scored model's logits and r the reference's, over the columns seen so far:
namespace pennyweight::kernels {

enum ScoreColumn {
  kScoreMax = 0,     // m_c = max c
  kScoreSum,         // sum exp(c - m_c)
  kScoreSumLow,      // what float32 lost of it
  kScoreArgmax,      // first column where c = m_c
  kScoreTarget,      // c[target]
  kScoreRefMax,      // m_r = max r
  kScoreRefSum,      // sum exp(r - m_r)
  kScoreRefSumLow,   //
  kScoreRefArgmax,   // first column where r = m_r
  kScoreRefTarget,   // r[target]
  kScoreDifference,  // sum exp(r - m_r) (r - c)
  kScoreDifferenceLow,
  kScoreHasReference,  // 1 where a reference came with every tile
  kScoreColumns,
};

}  // namespace pennyweight::kernels
