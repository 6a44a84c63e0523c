#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What can take over a scale of the input channels of `linears`: dividing
/// the previous op's output channel by what its input channels are multiplied
/// by leaves the model's function as it was.
struct ScaleGroup {
  enum class Previous {
    norm,    // weight[c] /= s[c]
    linear,  // weight[c, :] and bias[c] /= s[c]
  };

  Previous kind = Previous::norm;
  std::string previous;
  float offset = 0;   // of the norm
  bool bias = false;  // of the norm
  std::vector<std::string> linears;
  int64_t channels = 0;  // input channels of the linears
  /// The output channel of `previous` that feeds each input channel; empty:
  /// they are the same. Where one feeds several (v_proj to o_proj of grouped
  /// queries), their scales must be equal.
  std::vector<int32_t> from;
  int64_t outputs = 0;  // of `previous`
  /// Output channels are divided by the scales to this power: 0.5 where what
  /// they give is squared.
  float power = 1;
};

std::vector<ScaleGroup> list_scale_groups(const BlockSpec& block);

}  // namespace pennyweight
