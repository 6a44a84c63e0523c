#pragma once

#include <variant>

#include "ops/ops.h"

/// A model's head and the divergence from a reference that is trained by,
/// without logits of more than some rows at a time.
namespace pennyweight::ops {

/// The largest logits of each row, as mlx_lm's dwq keeps them of a teacher.
struct TopLogits {
  mx::array values;   // [rows, count], floating
  mx::array columns;  // uint32 [rows, count], each once in a row
};

/// Of head's logits, cap * tanh(logits / cap) where cap > 0: the `count`
/// largest of each row, in `dtype`, ascending by column.
TopLogits
top_logits(const HeadRows& head, float cap, int count, mx::Dtype dtype);

struct KlOptions {
  float temperature = 1;    // divides both sides' logits
  float cap = 0;            // of the head's logits, as in top_logits
  float reference_cap = 0;  // of the reference's
  float factor = 1;         // multiplies the gradients, not the loss
};

struct KlHead {
  mx::array loss;                    // float32 [rows], KL(reference || head)
  mx::array dx;                      // float32 [rows, in]
  std::optional<mx::array> dweight;  // float32 [vocab, in]
};

/// KL of each row and its gradient by head.x and, where asked for, by
/// head.weight. By a reference's largest logits both softmaxes run over their
/// columns only. x and weight of head are of one type, in which the products
/// run.
KlHead kl_head(
    const HeadRows& head,
    const std::variant<HeadRows, TopLogits>& reference,
    const KlOptions& options,
    bool weight_gradient);

/// v weight, float32 [rows, in], where v is, by row, a draw of mean 0 and
/// covariance diag(p) - p p^T, p = softmax of head's logits (cap as above):
/// that of the gradient of -log p(y) by the logits with y drawn from p, the
/// second order of the KL from head to what is near it. With q = sqrt(p),
///   v = q * s - p (q . s),
/// s random signs, which strays less than p - onehot(y) does. Signs are by
/// `seed`, by first_row + row and by column.
mx::array fisher_slopes(
    const HeadRows& head,
    float cap,
    uint64_t seed,
    int64_t first_row);

}  // namespace pennyweight::ops
