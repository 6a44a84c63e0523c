#pragma once

#include "model/embedding_and_head.h"
#include "model/model.h"
#include "model/weights.h"

namespace pennyweight {

/// All functions here throw a numeric Error that names the first tensor with
/// NaN or infinities: the checkpoint is damaged, and nothing that is computed
/// from it would say so.

/// Checks norms, biases and other small tensors in the type that the checkpoint
/// has them in.
void require_finite_vectors(const Model& model);

/// Gives a linear's dense weight, evaluated and row-contiguous. For a float16
/// weight the error says that the cast may have made the infinities.
mx::array finite_dense(const LinearWeights& linear, const std::string& path);

/// Checks a block's dense weights, and the scales and biases of packed ones.
void require_finite(const BlockWeights& weights);

/// Checks embedding and head, and the tables of token inputs, by pieces.
void require_finite(const Model& model, const EmbeddingAndHead& weights);

/// Rounds a table to nearest; evaluated.
ops::QuantizedWeight quantize(const VocabTable& table, const QuantSpec& spec);

}  // namespace pennyweight
