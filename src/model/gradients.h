#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace pennyweight {

/// The gradients of a loss by a block's input and weights, not evaluated yet.
struct BlockGradients {
  mx::array x;  // float32, of the shape of the block's input
  /// By module path, for the linears that were asked for: float32 [out, in].
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

/// Makes a scalar loss of a block's output y [batch, length, hidden].
using OutputLoss = std::function<mx::array(const mx::array& y)>;

/// A loss and its gradients, not evaluated yet.
struct LossGradients {
  mx::array loss;
  std::map<std::string, mx::array> weights;  // as in BlockGradients
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

/// What each linear of a block read, and the gradient by what it made of it;
/// not evaluated yet.
struct BlockTraces {
  mx::array x;  // the gradient by the block's input, float32
  /// By module path; a stack of experts has one entry, by the stack's path. A
  /// linear without a part in the output has none, nor has one that its
  /// publisher packed.
  std::map<std::string, LinearTrace> linears;
};

/// As block_gradients, but with gradients by the linears' outputs in place of
/// those by their weights.
BlockTraces trace_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const mx::array& dy,
    const ForwardContext& context);

}  // namespace pennyweight
