#pragma once

#include "kernels/kernels.h"

/// Kernels of distillation: the Kullback-Leibler divergence of a model's
/// logits from a reference's with its gradients, the largest logits of a row,
/// and gradients by a packed weight's scales. Rules as in kernels.h.
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

/// Of a tile of the vocabulary, by row, with s = logits / T and r = reference /
/// T, T the temperature:
///   slopes = factor / T (softmax(s) - softmax(r)),
/// the softmaxes over the whole vocabulary, whose maxima and sums `state` holds
/// (see score_state.h; of s and r). Where cap > 0 the logits were capped (cap *
/// tanh(z / cap)), and the slopes are by z.
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

/// KlGradientArgs on logits that are made a tile at a time and never stored.
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

/// The same of a reference's largest columns only, over which both softmaxes
/// run (what mlx_lm's dwq trains by): `values` [rows, count] are the head's
/// logits there, capped. loss is KL(softmax(r) || softmax(s)).
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

/// Some columns of each row: indices [rows, count], each once in a row, of
/// which the tile has first .. first + columns - 1.
struct TopColumns {
  int64_t rows = 0;
  int64_t count = 0;
  const uint32_t* indices = nullptr;
  int64_t first = 0;
  int64_t columns = 0;
};

/// values [rows, count] at those that the tile has.
struct PickTopArgs {
  TopColumns places{};
  HeadSide head{};
  float* values = nullptr;
};

/// tile [rows, columns] = values where a column is one of these, else 0.
struct SpreadTopArgs {
  TopColumns places{};
  const float* values = nullptr;
  Matrix tile{};
};

/// The `count` largest values of each row of x [rows, columns] and their
/// columns, ascending by column; of equal ones the first columns.
struct TopArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t count = 0;
  ConstMatrix x{};  // float32
  Matrix values{};
  uint32_t* indices = nullptr;  // [rows, count]
};

/// TopArgs on logits that are made some rows at a time.
struct TopHeadArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t count = 0;
  HeadSide head{};
  Matrix values{};
  uint32_t* indices = nullptr;
};

/// Columns of a row of FisherTileArgs' state, over the columns seen so far: the
/// log of sum exp(logits), and sum s exp(logits / 2) over the square root of
/// sum exp(logits), s the signs drawn.
enum FisherColumn { kFisherLogSum = 0, kFisherDot, kFisherColumns };

/// A tile of the vocabulary of v, a draw by row of mean 0 and covariance
/// diag(p) - p p^T, p = softmax(logits) over the whole of it; see
/// ops::fisher_head. Signs are by `seed`, first_row + row and column, where
/// `first` is the tile's first column, a multiple of 64.
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
