#pragma once

#include <mlx/ops.h>

#include "ops/kl_head.h"

/// The steps that kl_head() and fisher_head() are made of, each over one tile
/// of the vocabulary.
namespace pennyweight::ops {

/// Column of a state [rows, columns] of score_linear or fisher_update.
inline mx::array state_column(const mx::array& state, int column) {
  return mx::slice(state, {0, column}, {state.shape(0), column + 1});
}

/// The gradient by logits before the cap, given that by capped `logits`: made
/// of MLX's ops.
mx::array gradient_before_cap(
    const mx::array& gradient,
    const mx::array& logits,
    float cap);

/// Checks what score_linear and kl_gradient are given.
void check_score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first);

/// The gradient of the divergence by the head's logits of a tile, in the
/// weight's type [rows, n]: factor / temperature (softmax(head) -
/// softmax(reference)), both of logits over the temperature, whose maxima and
/// sums over the whole vocabulary are in `state` (see score_linear).
mx::array kl_gradient(
    const mx::array& state,
    const HeadRows& head,
    const HeadRows& reference,
    const KlOptions& options);

/// `values` float32 [rows, count], of which those whose column is in this tile,
/// the vocabulary's rows from `first` on, become the head's logits.
mx::array pick_logits(
    const mx::array& values,
    const HeadRows& head,
    const mx::array& columns,
    int first);

/// The divergence over the reference's columns alone, where the head has the
/// logits `values`, and its gradient by these, before the cap.
struct TopKl {
  mx::array loss;      // float32 [rows]
  mx::array gradient;  // float32 [rows, count]
};
TopKl kl_top(
    const mx::array& values,
    const TopLogits& reference,
    float cap,
    const KlOptions& options);

/// A tile [rows, n] in `dtype` of the vocabulary's columns from `first` on:
/// `gradient` [rows, count] in the columns that it is of, 0 in all others.
mx::array spread_gradient(
    const mx::array& gradient,
    const mx::array& columns,
    int first,
    int n,
    mx::Dtype dtype);

/// fisher_head() in two passes. The first brings the running sums of each row
/// up to date by one tile after the other, which begin at multiples of 64; then
/// fisher_gradient gives v of a tile [rows, n], in the weight's type.
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

/// sum float32 [rows, in] plus the gradient by logits [rows, n] times weight
/// [n, in]; on a CPU in sum's own memory where nothing else needs it.
mx::array add_transposed(
    const mx::array& sum,
    const mx::array& gradient,
    const mx::array& weight);

}  // namespace pennyweight::ops
