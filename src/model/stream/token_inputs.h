#pragma once

#include <vector>

#include "model/embedding_and_head.h"

namespace pennyweight {

/// What tokens [batch, length] bring to each block (TokenInputsSpec), in
/// `dtype`, evaluated; empty for a model without. `x`: embed() of the tokens.
std::vector<mx::array> token_inputs(
    const EmbeddingAndHead& tables,
    const mx::array& tokens,
    const mx::array& x,
    mx::Dtype dtype);

/// Gradients of a loss by what makes them, given those by the inputs of all
/// blocks, one after the other, dy float32 [batch, length, blocks * size].
struct TokenGradients {
  mx::array x;           // by the tokens' embeddings, as those
  mx::array rows;        // by each token's row of the table [tokens, columns]
  mx::array projection;  // by the projection's weight, as that
};
TokenGradients token_gradients(
    const EmbeddingAndHead& tables,
    const mx::array& x,
    const mx::array& dy,
    mx::Dtype dtype);

}  // namespace pennyweight
