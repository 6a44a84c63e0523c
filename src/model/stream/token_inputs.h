#pragma once

#include <vector>

#include "model/embedding_and_head.h"

namespace pennyweight {

/// What tokens int32 [batch, length] bring to each block (TokenInputsSpec): an
/// array [batch, length, size] for each, in `dtype`, evaluated. Empty for a
/// model without token inputs. `x` is embed() of the tokens.
std::vector<mx::array> token_inputs(
    const EmbeddingAndHead& tables,
    const mx::array& tokens,
    const mx::array& x,
    mx::Dtype dtype);

/// The gradients of a loss by what token inputs are made of.
struct TokenGradients {
  mx::array x;           // by the tokens' embeddings, of their shape
  mx::array rows;        // by each token's row of the table [tokens, columns]
  mx::array projection;  // by the projection's weight [blocks * size, hidden]
};
/// Goes back through token_inputs(), from the gradients by the inputs of all
/// blocks one after the other, dy float32 [batch, length, blocks * size]. x is
/// embed() of the tokens. All float32, evaluated.
TokenGradients token_gradients(
    const EmbeddingAndHead& tables,
    const mx::array& x,
    const mx::array& dy,
    mx::Dtype dtype);

}  // namespace pennyweight
