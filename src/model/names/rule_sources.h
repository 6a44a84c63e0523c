#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "checkpoint/tensor_info.h"
#include "core/json.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// A rule of ClassNames, and a tensor of the checkpoint that it applies to.
struct RuleUse {
  const Json& rule;
  const TensorInfo& stored;
  /// The number at a key of the config.
  std::function<int64_t(const std::string& key)> integer;
};

/// The sources that a rule makes of the tensor, by mlx-lm's names. corrupt
/// Error where the tensor's rows can't be divided as the config asks.
std::map<std::string, TensorSource> sources_of(const RuleUse& use);

}  // namespace pennyweight
