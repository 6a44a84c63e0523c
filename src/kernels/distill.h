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

/// By row, of s = logits / T and r = reference / T, T the temperature:
///   loss = KL(softmax(r) || softmax(s)),
///   dlogits = factor / T (softmax(s) - softmax(r)).
/// Where cap > 0 the logits were capped (cap * tanh(z / cap)), and dlogits is
/// by z. dlogits may be `logits` itself where it is float32.
struct KlRowsArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float temperature = 1;
  float cap = 0;
  float factor = 1;
  ConstMatrix logits{};     // float32
  ConstMatrix reference{};  // float32
  float* loss = nullptr;    // [rows]
  Matrix dlogits{};
};

/// The largest logits of a reference: [rows, count], each with its column.
struct TopView {
  int64_t count = 0;
  ConstMatrix values{};
  const uint32_t* columns = nullptr;  // [rows, count]
};

/// As KlRowsArgs, of both sides only the reference's largest columns, over
/// which both softmaxes run (what mlx_lm's dwq trains by). Others have no
/// gradient. A column may stand once in a row.
struct KlTopArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float temperature = 1;
  float cap = 0;
  float factor = 1;
  ConstMatrix logits{};  // float32
  TopView reference{};
  float* loss = nullptr;
  Matrix dlogits{};  // not `logits`
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

/// Rows x of a model before its head, [rows, k], with the head [columns, k].
struct HeadSide {
  int64_t k = 0;
  ConstMatrix x{};
  ConstMatrix weight{};
  ConstVector bias{};  // optional
  float cap = 0;       // logits become cap * tanh(logits / cap); 0: they stay
};

/// KlRowsArgs or KlTopArgs on logits that are made some rows at a time and
/// never stored, and what follows from dlogits: dx = dlogits weight, dweight
/// += dlogits^T x.
struct KlHeadArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  HeadSide head{};
  HeadSide reference{};  // x.data null: `top` is the reference
  TopView top{};
  float temperature = 1;
  float factor = 1;
  float* loss = nullptr;  // [rows]
  Matrix dx{};            // [rows, head.k]; optional
  Matrix dweight{};       // float32 [columns, head.k]; optional
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

/// Of p = softmax(logits) by row: dx = v weight, v a draw of mean 0 and
/// covariance diag(p) - p p^T; see ops::fisher_slopes.
struct FisherHeadArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  HeadSide head{};
  uint64_t seed = 0;
  int64_t first_row = 0;  // rows count from it in what is drawn
  Matrix dx{};            // [rows, head.k]
};

void group_gradient(const GroupGradientArgs& args);
void accumulate(const AccumulateArgs& args);
void kl_rows(const KlRowsArgs& args);
void kl_top(const KlTopArgs& args);
void top(const TopArgs& args);
/// Made of matmul, kl_rows, kl_top and gram.
void kl_head(const KlHeadArgs& args);
/// Made of matmul and softmax.
void fisher_head(const FisherHeadArgs& args);
/// Made of matmul and top.
void top_head(const TopHeadArgs& args);

}  // namespace pennyweight::kernels
