#pragma once

#include "model/embedding_and_head.h"
#include "model/model.h"
#include "model/weights.h"

namespace pennyweight {

/// These throw a numeric Error that names the first tensor with NaN or
/// infinities: the checkpoint is damaged, and nothing that is computed from it
/// would say so.

/// Norms, biases and other small tensors, which everything depends on. As the
/// checkpoint has them.
void require_finite_vectors(const Model& model);

/// A linear's dense weight, evaluated and row-contiguous. Where it was cast to
/// float16 the error says so.
mx::array finite_dense(const LinearWeights& linear, const std::string& path);

/// A block's dense weights, and scales and biases of packed ones.
void require_finite(const BlockWeights& weights);

/// The same of embedding and head.
void require_finite(const Model& model, const EmbeddingAndHead& weights);

/// A table rounded to nearest, evaluated. numeric Error as above.
ops::QuantizedWeight quantize(const VocabTable& table, const QuantSpec& spec);

}  // namespace pennyweight
