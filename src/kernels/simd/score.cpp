#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/score.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "kernels/access.h"
#include "kernels/score_state.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

/// Columns whose terms are summed in float32 before they join the row's
/// float64 sum: short enough for float32, and still in the first cache when
/// they are read a second time.
constexpr int64_t kScoreChunk = 1024;

/// The sum of exp(x - max) over what has been seen of a row, and where max
/// stood first.
struct Peak {
  float max;
  double sum;
  float argmax;
};

template <class T>
int64_t find_value(const T* x, int64_t n, float value) {
  const Vec wanted = hn::Set(Floats(), value);
  int64_t i = 0;
  while (i + lanes() <= n &&
         hn::AllFalse(Floats(), hn::Eq(load(x + i), wanted))) {
    i += lanes();
  }
  while (i + 1 < n && to_float(x[i]) != value) {
    ++i;
  }
  return i;
}

/// Raises the peak to the chunk's maximum. Returns what sums relative to the
/// old maximum have to be multiplied by.
template <class T>
double raise(Peak& peak, const T* x, int64_t n, int64_t column) {
  const float max = largest(x, n);
  if (!(max > peak.max)) {
    return 1.0;
  }
  const double shrink = std::exp(double(peak.max) - double(max));
  peak.sum *= shrink;
  peak.max = max;
  peak.argmax = float(column + find_value(x, n, max));
  return shrink;
}

struct DifferenceSums {
  double weight;
  double difference;
};

/// Sums of exp(r - max) and exp(r - max) (r - c). A weight of 0 counts for
/// nothing even where the difference is infinite.
template <class T, class U>
DifferenceSums chunk_difference(const U* r, const T* c, float max, int64_t n) {
  const Floats d;
  const Vec shift = hn::Set(d, max);
  Vec weights = hn::Zero(d);
  Vec differences = hn::Zero(d);
  const auto add = [&](Vec rv, Vec cv, Vec weight) HWY_ATTR {
    weights = hn::Add(weights, weight);
    const Vec term = hn::Mul(weight, hn::Sub(rv, cv));
    const auto nothing = hn::Eq(weight, hn::Zero(d));
    differences = hn::Add(differences, hn::IfThenZeroElse(nothing, term));
  };
  for_vectors(
      n,
      [&](int64_t i) HWY_ATTR {
        const Vec rv = load(r + i);
        add(rv, load(c + i), exp_of_negative(hn::Sub(rv, shift)));
      },
      [&](int64_t i, int64_t rest) HWY_ATTR {
        const Vec rv = load_some(r + i, rest);
        const auto mask = hn::FirstN(d, size_t(rest));
        const Vec weight =
            hn::IfThenElseZero(mask, exp_of_negative(hn::Sub(rv, shift)));
        add(rv, load_some(c + i, rest), weight);
      });
  return {sum_of(weights), sum_of(differences)};
}

Peak load_peak(const float* state, int side) {
  return {
      state[side],
      load_sum(state, side + kScoreSum),
      state[side + kScoreArgmax]};
}

void store_peak(const Peak& peak, float* state, int side) {
  state[side] = peak.max;
  store_sum(state, side + kScoreSum, peak.sum);
  state[side + kScoreArgmax] = peak.argmax;
}

template <class T>
void score_row(const T* logits, const ScoreArgs& args, float* state) {
  Peak peak = load_peak(state, kScoreMax);
  for (int64_t from = 0; from < args.columns; from += kScoreChunk) {
    const int64_t n = std::min(kScoreChunk, args.columns - from);
    raise(peak, logits + from, n, args.first + from);
    peak.sum += double(exp_terms(logits + from, peak.max, nullptr, n));
  }
  store_peak(peak, state, kScoreMax);
}

template <class T, class U>
void score_reference_row(
    const T* logits,
    const U* reference,
    const ScoreArgs& args,
    float* state) {
  Peak peak = load_peak(state, kScoreRefMax);
  double difference = load_sum(state, kScoreDifference);
  for (int64_t from = 0; from < args.columns; from += kScoreChunk) {
    const int64_t n = std::min(kScoreChunk, args.columns - from);
    difference *= raise(peak, reference + from, n, args.first + from);
    const auto sums =
        chunk_difference(reference + from, logits + from, peak.max, n);
    peak.sum += sums.weight;
    difference += sums.difference;
  }
  store_peak(peak, state, kScoreRefMax);
  store_sum(state, kScoreDifference, difference);
  state[kScoreHasReference] = 1;
}

template <class T, class U>
void score_both(const ScoreArgs& args, int64_t row) {
  float* state = args.state + row * args.state_stride;
  const int64_t target = args.targets[row] - args.first;
  const bool here = target >= 0 && target < args.columns;
  const T* logits = row_of<T>(args.logits, row);
  score_row(logits, args, state);
  if (here) {
    state[kScoreTarget] = to_float(logits[target]);
  }
  if (args.reference.data) {
    const U* reference = row_of<U>(args.reference, row);
    score_reference_row(logits, reference, args, state);
    if (here) {
      state[kScoreRefTarget] = to_float(reference[target]);
    }
  }
}

void score_update(const ScoreArgs& args) {
  visit_types(
      args.logits.type, args.reference.type, [&]<class T, class U>(T*, U*) {
        parallel_rows(args.rows, args.columns, [&](int64_t row) {
          score_both<T, U>(args, row);
        });
      });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(score_update, ScoreArgs)

}  // namespace pennyweight::kernels

#endif
