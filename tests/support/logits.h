#pragma once

#include "model/decoder.h"
#include "model/model.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"

namespace pennyweight::testing {

/// Logits float32 [batch, length, vocab] of tokens [batch, length] through
/// the whole model, all at once.
inline mx::array
logits(const Model& model, const mx::array& tokens, mx::Dtype dtype) {
  auto tables = load_embedding_and_head(model, dtype);
  auto x = embed(tables, tokens);
  const auto inputs = token_inputs(tables, tokens, x, dtype);
  ForwardContext context{.dtype = dtype};
  for (const BlockSpec& block : model.spec.blocks) {
    if (block.token_gate) {
      x = with_token_input(x, inputs.at(static_cast<size_t>(block.index)));
    }
    x = run_block(block, load_block(model, block.index, dtype), x, context);
  }
  auto normal = final_norm(model.spec, tables, x, dtype);
  return head_tile(tables, normal, 0, static_cast<int>(model.spec.vocab));
}

}  // namespace pennyweight::testing
