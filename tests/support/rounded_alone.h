#pragma once

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <map>
#include <string>
#include <vector>

#include "method/gptq/gptq.h"
#include "method/pack_result.h"
#include "model/decoder.h"
#include "model/gradients.h"
#include "ops/kl_head.h"
#include "ops/primitive.h"
#include "pass/floats.h"
#include "pass/token_batches.h"

namespace pennyweight::testing {

/// Compares a model with itself after some linears of a block are replaced. It
/// computes in float32: in bfloat16 any change at all also changes roundings on
/// the way, which on SmolLM2-135M is a KL of 5e-4.
class RoundedAlone {
 public:
  RoundedAlone(
      const Model& model,
      const std::vector<std::vector<int32_t>>& sequences,
      int64_t batch_tokens)
      : model_(model),
        batches_(make_token_batches(sequences, model.spec.vocab, batch_tokens)),
        tables_(load_embedding_and_head(model, mx::float32)) {
    inputs_.resize(model.spec.blocks.size() + 1);
    for (const auto& batch : batches_) {
      inputs_[0].push_back(embed(tables_, batch.tokens));
      mx::eval(inputs_[0].back());
    }
    for (const auto& block : model.spec.blocks) {
      const auto index = static_cast<size_t>(block.index);
      inputs_[index + 1] = through(block, {}, inputs_[index]);
    }
  }

  /// The sum of x x^T over the inputs x [in] of a linear that is no expert.
  std::vector<float> hessian(const ModuleSpec& module) const {
    const BlockSpec& block = model_.spec.blocks.at(size_t(module.block));
    const auto weights = load_block(model_, module.block, mx::float32);
    auto sum = mx::zeros({int(module.in), int(module.in)});
    for (size_t i = 0; i < batches_.size(); ++i) {
      const auto& x = inputs_[size_t(module.block)][i];
      const auto traces =
          trace_block(block, weights, x, mx::ones_like(x), context());
      const auto rows =
          pick_tokens(batches_[i], *traces.linears.at(module.path).x);
      sum = ops::gram_add(sum, {rows}, rows);
      mx::eval(sum);
    }
    return to_vector(sum);
  }

  /// The module's weight after GPTQ, expanded to float32 [out, in].
  mx::array by_gptq(const ModuleSpec& module, const QuantSpec& spec) const {
    const GptqOptions options;
    const GptqHessian factored(hessian(module), module.in, options);
    auto weight = mx::contiguous(mx::astype(
        *load_linear(model_, module.path, model_.dtype).dense, mx::float32));
    mx::eval(weight);
    const auto result = gptq_quantize(
        weight.data<float>(),
        module.out,
        factored,
        spec,
        ops::kernel_type(model_.dtype),
        options);
    return ops::dequantize(
        pack_result(result, spec, model_.dtype), mx::float32);
  }

  /// The mean KL divergence, in nats a token, of the model with weights
  /// `replaced`, by module path, in place of linears of one block.
  double kl(int block, const std::map<std::string, mx::array>& replaced) const {
    auto states = inputs_[size_t(block)];
    for (size_t i = size_t(block); i < model_.spec.blocks.size(); ++i) {
      states = through(model_.spec.blocks[i], replaced, states);
    }
    double sum = 0;
    int64_t tokens = 0;
    for (size_t i = 0; i < batches_.size(); ++i) {
      const auto divergence =
          ops::kl_loss(head_of(states[i], i), head_of(inputs_.back()[i], i));
      sum += double(mx::sum(divergence).item<float>());
      tokens += batches_[i].count;
    }
    return sum / double(tokens);
  }

 private:
  ForwardContext context() const {
    return {.dtype = mx::float32};
  }

  ops::Head head_of(const mx::array& x, size_t batch) const {
    return tables_.head.head(
        pick_tokens(
            batches_[batch], final_norm(model_.spec, tables_, x, mx::float32)),
        tables_.logit_cap);
  }

  std::vector<mx::array> through(
      const BlockSpec& block,
      const std::map<std::string, mx::array>& replaced,
      const std::vector<mx::array>& states) const {
    auto weights = load_block(model_, block.index, mx::float32);
    for (const auto& [path, weight] : replaced) {
      const auto it = weights.linears.find(path);
      if (it != weights.linears.end()) {
        it->second.dense = weight;
      }
    }
    std::vector<mx::array> after;
    for (const auto& state : states) {
      after.push_back(run_block(block, weights, state, context()));
      mx::eval(after.back());
    }
    return after;
  }

  const Model& model_;
  std::vector<TokenBatch> batches_;
  EmbeddingAndHead tables_;
  std::vector<std::vector<mx::array>> inputs_;  // of each block and batch
};

}  // namespace pennyweight::testing
