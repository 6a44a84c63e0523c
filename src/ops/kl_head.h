#pragma once

#include <cstdint>
#include <functional>
#include <variant>

#include "ops/ops.h"

/// A model's head and the divergence from a reference that is trained by. The
/// vocabulary goes by in tiles, each of which is read when it is its turn: no
/// logits but a tile's are ever held, and no more of the head. Gradients take a
/// second pass, when the softmaxes' sums are known.
namespace pennyweight::ops {

/// Rows of a head: weight [count, in] of vocabulary entries first .. first +
/// count - 1, and their bias.
struct HeadTile {
  mx::array weight;
  std::optional<mx::array> bias = std::nullopt;
};

/// What a head reads, x [rows, in], and the head.
struct Head {
  mx::array x;
  int vocab = 0;
  std::function<HeadTile(int first, int count)> tile;
  float cap = 0;  // logits become cap * tanh(logits / cap); 0: they stay
};
/// One that is in memory.
Head whole_head(const HeadRows& rows);

/// The largest logits of each row, as mlx_lm's dwq keeps them of a teacher.
struct TopLogits {
  mx::array values;   // [rows, count], floating
  mx::array columns;  // uint32 [rows, count], each once in a row
};

/// Of head's logits the `count` largest of each row, in `dtype`, ascending by
/// column. The head is read whole.
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

/// KL of each row, and its gradient by head.x and, where `gradient` takes it,
/// by the weight. By a reference's largest logits both softmaxes run over their
/// columns only. x and weight of a side are of one type, in which the products
/// run.
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

/// v weight, float32 [rows, in], evaluated, where v is, by row, a draw of mean
/// 0 and covariance diag(p) - p p^T, p = softmax of head's logits: that of the
/// gradient of -log p(y) by the logits with y drawn from p, the second order of
/// the KL from head to what is near it. With q = sqrt(p),
///   v = q * s - p (q . s),
/// s random signs, which strays less than p - onehot(y) does. Signs are by
/// `seed`, by first_row + row and by column.
mx::array fisher_head(const Head& head, uint64_t seed, int64_t first_row);

}  // namespace pennyweight::ops
