#pragma once

#include <cstdint>
#include <functional>
#include <variant>

#include "ops/ops.h"

/// A model's head and its divergence from a reference, by which models are
/// trained. The vocabulary goes by in tiles, each of which is read when it is
/// its turn: no more than one tile's logits and one tile of the head are held
/// at a time. Gradients take a second pass, when the softmaxes' sums are known.
namespace pennyweight::ops {

/// Rows of a head: weight [count, in] of vocabulary entries first .. first +
/// count - 1, and their bias.
struct HeadTile {
  mx::array weight;
  std::optional<mx::array> bias = std::nullopt;
};

/// A head and what it reads, x [rows, in].
struct Head {
  mx::array x;
  int vocab = 0;
  std::function<HeadTile(int first, int count)> tile;
  float cap = 0;  // logits become cap * tanh(logits / cap); 0: they stay
};
/// A head that is in memory as a whole.
Head whole_head(const HeadRows& rows);

/// The largest logits of each row, as mlx_lm's dwq keeps them of a teacher.
struct TopLogits {
  mx::array values;   // [rows, count], floating
  mx::array columns;  // uint32 [rows, count], each once in a row
};

/// The `count` largest of the head's logits in each row, in `dtype` and in
/// ascending order of columns. The head is read as a whole.
TopLogits top_logits(const Head& head, int count, mx::Dtype dtype);

struct KlOptions {
  float temperature = 1;  // divides both sides' logits
  float factor = 1;       // multiplies the gradients, not the loss
};

/// Takes the gradient by a tile of the head's weight, float32 [count, in].
using TileGradientFn =
    std::function<void(int first, int count, const mx::array& gradient)>;

struct KlHead {
  mx::array loss;  // float32 [rows], KL(reference || head), evaluated
  mx::array dx;    // float32 [rows, in], by head.x, evaluated
};

/// The KL of each row, its gradient by head.x and, where `gradient` is given,
/// that by the weight. Where the reference is its largest logits, both
/// softmaxes run over their columns only. x and weight of a side are of one
/// type, in which the products run.
KlHead kl_head(
    const Head& head,
    const std::variant<Head, TopLogits>& reference,
    const KlOptions& options,
    const TileGradientFn& gradient = {});

/// The KL alone, in one pass.
mx::array kl_loss(
    const Head& head,
    const std::variant<Head, TopLogits>& reference,
    const KlOptions& options = {});

/// v times the head's weight, float32 [rows, in], evaluated. Each row of v is a
/// random draw of mean 0 and covariance diag(p) - p p^T, where p is the softmax
/// of the row's logits. That is the covariance of the gradient of -log p(y) by
/// the logits with y drawn from p, and the second-order term of the KL between
/// the head and one that is near it. With q = sqrt(p) and random signs s,
///   v = q * s - p (q . s),
/// which varies less than p - onehot(y). The signs depend on `seed`, on
/// first_row + row and on the column.
mx::array fisher_head(const Head& head, uint64_t seed, int64_t first_row);

}  // namespace pennyweight::ops
