#pragma once

#include <mlx/ops.h>

#include "ops/kl_head.h"

/// The steps that kl_head() and fisher_head() are made of, over one tile of the
/// vocabulary each. On a GPU they are MLX's own ops.
namespace pennyweight::ops {

/// Column of a state [rows, columns] of score_linear or fisher_update.
inline mx::array state_column(const mx::array& state, int column) {
  return mx::slice(state, {0, column}, {state.shape(0), column + 1});
}

/// slopes by capped logits to slopes by those before the cap, of MLX's ops.
mx::array
uncapped_slopes(const mx::array& slopes, const mx::array& logits, float cap);

/// By the logits, in the weight's type [rows, n]: factor / temperature
/// (softmax(head) - softmax(reference)), of logits over the temperature whose
/// whole vocabulary `state` has seen (see score_linear).
mx::array kl_gradient(
    const mx::array& state,
    const HeadRows& head,
    const HeadRows& reference,
    const KlOptions& options);

/// `values` float32 [rows, count] with head's logits at those of `columns` that
/// its rows, the vocabulary's from `first` on, are.
mx::array pick_logits(
    const mx::array& values,
    const HeadRows& head,
    const mx::array& columns,
    int first);

/// The loss and its gradient by `values`, the head's logits (before the cap) at
/// the reference's columns, over which both softmaxes run.
struct TopKl {
  mx::array loss;    // float32 [rows]
  mx::array slopes;  // float32 [rows, count]
};
TopKl kl_top(
    const mx::array& values,
    const TopLogits& reference,
    float cap,
    const KlOptions& options);

/// [rows, n] in `dtype`: slopes where a column is one of the vocabulary's from
/// `first` on, else 0.
mx::array spread_slopes(
    const mx::array& slopes,
    const mx::array& columns,
    int first,
    int n,
    mx::Dtype dtype);

/// Running sums of v by row (see fisher_head), advanced by a tile that begins
/// at a multiple of 64; and v of a tile [rows, n], in the weight's type, once
/// they have seen the whole vocabulary.
mx::array fisher_start(int rows);
struct FisherDraw {
  uint64_t seed = 0;
  int64_t first_row = 0;
  int first = 0;
};
mx::array fisher_update(
    const mx::array& state,
    const HeadRows& head,
    const FisherDraw& draw);
mx::array fisher_gradient(
    const mx::array& state,
    const HeadRows& head,
    const FisherDraw& draw);

/// sum float32 [rows, in] plus slopes [rows, n] times weight [n, in]; on a CPU
/// in sum's own memory where nothing else needs it.
mx::array add_transposed(
    const mx::array& sum,
    const mx::array& slopes,
    const mx::array& weight);

/// slopes [rows, n] transposed times x [rows, in], float32 [n, in].
mx::array slopes_by_x(const mx::array& slopes, const mx::array& x);

}  // namespace pennyweight::ops
