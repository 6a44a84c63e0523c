#pragma once

#include "kernels/kernels.h"

/// Kernels of distillation: the gradients of the Kullback-Leibler divergence of
/// a model's logits from a reference's, the largest logits of a row, and
/// gradients by a packed weight's scales. The rules of kernels.h hold.
namespace pennyweight::kernels {

/// For w = scale * code + bias and the gradient dw [rows, columns] of an
/// affine weight: dscales[r, g] is the sum over group g of dw * code,
/// dbiases[r, g] of dw. Both float32 [rows, columns / group].
struct GroupGradientArgs {
  QuantizedMatrix weight{};  // scales and biases are not read
  ConstMatrix dw{};          // float32
  float* dscales = nullptr;
  float* dbiases = nullptr;
};

/// sum += x, float32 [count].
struct AccumulateArgs {
  int64_t count = 0;
  const float* x = nullptr;
  float* sum = nullptr;
};

/// The gradient of KL(softmax(r) || softmax(s)) by the logits of a tile of the
/// vocabulary, where s = logits / T, r = reference / T and T is the
/// temperature:
///   gradient = factor / T (softmax(s) - softmax(r)).
/// The softmaxes run over the whole vocabulary: `state` holds the maxima and
/// sums of s and r (see score_state.h). Where cap > 0 the logits are cap *
/// tanh(z / cap), and the gradient is by z.
struct KlGradientArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float temperature = 1;
  float cap = 0;
  float factor = 1;
  ConstMatrix logits{};          // float32
  ConstMatrix reference{};       // float32
  const float* state = nullptr;  // [rows, state_stride]
  int64_t state_stride = 0;
  Matrix gradient{};
};

/// KlGradientArgs for logits that are made a tile at a time and never stored as
/// a whole.
struct KlTileArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  HeadSide head{};
  HeadSide reference{};
  float temperature = 1;
  float factor = 1;
  const float* state = nullptr;
  int64_t state_stride = 0;
  Matrix gradient{};
};

/// The divergence and its gradient where both softmaxes run over the columns of
/// the reference's largest logits only, which is what mlx_lm's dwq trains by.
/// `values` [rows, count] are the head's logits in these columns, after the
/// cap.
struct KlTopArgs {
  int64_t rows = 0;
  int64_t count = 0;
  float temperature = 1;
  float cap = 0;
  float factor = 1;
  const float* values = nullptr;
  ConstMatrix reference{};
  float* loss = nullptr;      // [rows]
  float* gradient = nullptr;  // [rows, count]
};

/// Some columns of the vocabulary for each row, `indices` [rows, count], all
/// different within a row; and a tile, which has the columns first .. first +
/// columns - 1.
struct TopColumns {
  int64_t rows = 0;
  int64_t count = 0;
  const uint32_t* indices = nullptr;
  int64_t first = 0;
  int64_t columns = 0;
};

/// values [rows, count] = the head's logits in the columns that the tile has;
/// the other values stay.
struct PickTopArgs {
  TopColumns places{};
  HeadSide head{};
  float* values = nullptr;
};

/// tile [rows, columns] = `values` [rows, count] in their columns, 0 in all
/// others.
struct SpreadTopArgs {
  TopColumns places{};
  const float* values = nullptr;
  Matrix tile{};
};

/// The `count` largest values of each row of x [rows, columns] and their
/// columns, in ascending order of columns. Of equal values those of the first
/// columns are taken.
struct TopArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t count = 0;
  ConstMatrix x{};  // float32
  Matrix values{};
  uint32_t* indices = nullptr;  // [rows, count]
};

/// TopArgs for logits that are made some rows at a time.
struct TopHeadArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t count = 0;
  HeadSide head{};
  Matrix values{};
  uint32_t* indices = nullptr;
};

/// What a row of FisherTileArgs' state holds of the vocabulary's columns seen
/// so far: log(sum(exp(logits))), and sum(s exp(logits / 2)) /
/// sqrt(sum(exp(logits))), where s are the signs drawn.
enum FisherColumn { kFisherLogSum = 0, kFisherDot, kFisherColumns };

/// Of a tile of the vocabulary: fisher_update brings `state` up to date by it;
/// fisher_gradient then, once the state has seen the whole vocabulary, gives
/// `gradient`, the tile of v. Each row of v is a random draw of mean 0 and
/// covariance diag(p) - p p^T, where p = softmax(logits); see ops::fisher_head.
/// The signs depend on `seed`, on first_row + row and on the column. `first`,
/// the tile's first column, is a multiple of 64.
struct FisherTileArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t first = 0;
  HeadSide head{};
  uint64_t seed = 0;
  int64_t first_row = 0;
  float* state = nullptr;  // [rows, kFisherColumns]
  Matrix gradient{};       // [rows, columns], by logits before the cap
};

}  // namespace pennyweight::kernels
