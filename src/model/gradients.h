#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace pennyweight {

/// Of one block, lazily.
struct BlockGradients {
  mx::array x;  // float32, as the block's input
  /// By the linears asked for, float32 [out, in], by module path.
  std::map<std::string, mx::array> weights;
};

/// The gradients of a loss by the block's input x and by the weights of
/// `linears`, which are dense, given that by its output, dy (both float32
/// [batch, length, hidden]). The block is run again from x.
BlockGradients block_gradients(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::vector<std::string>& linears,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context);

/// A loss of a block's output [batch, length, hidden], a scalar.
using OutputLoss = std::function<mx::array(const mx::array& y)>;

/// Lazily.
struct LossGradients {
  mx::array loss;
  std::map<std::string, mx::array> weights;  // as BlockGradients'
};

/// A loss of the block's output and its gradients by the weights of `linears`,
/// which are dense; the block is run once.
LossGradients loss_gradients(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::vector<std::string>& linears,
    const mx::array& x,
    const OutputLoss& loss,
    const ForwardContext& context);

/// Of one block, lazily.
struct BlockTraces {
  mx::array x;  // the gradient by the block's input, float32
  /// By module path, of a stack of experts by the stack's. A linear that has
  /// no part in the output has no entry, nor has one that is published packed.
  std::map<std::string, LinearTrace> linears;
};

/// As block_gradients, but by what the block's linears make instead of by
/// their weights.
BlockTraces trace_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context);

}  // namespace pennyweight
