#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// Linears whose input channels can be scaled, and the op before them that
/// takes the scales over (AWQ, arXiv 2306.00978): with the columns of `linears`
/// multiplied by s [channels], and the output channels of `previous` divided by
/// it, the model's function is what it was.
struct ScaleGroup {
  enum class Previous {
    norm,    // weight[c] /= s[c]
    linear,  // weight[c, :] and bias[c] /= s[c]
  };

  Previous kind = Previous::norm;
  std::string previous;              // module path
  float offset = 0;                  // of the norm
  bool bias = false;                 // of the norm
  std::vector<std::string> linears;  // module paths
  int64_t channels = 0;              // input channels of the linears
  /// The output channel of `previous` that feeds each input channel; empty:
  /// they are the same. Where one feeds several (v_proj to o_proj of grouped
  /// queries), their scales must be equal.
  std::vector<int32_t> from;
  int64_t outputs = 0;  // of `previous`
  /// Output channels are divided by the scales to this power: 0.5 where their
  /// outputs are squared.
  float power = 1;
};

/// The scale groups of a block, in the order of its forward pass.
std::vector<ScaleGroup> list_scale_groups(const BlockSpec& block);

}  // namespace pennyweight
