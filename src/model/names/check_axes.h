#pragma once

#include <mlx/array.h>

#include <string>

#include "core/json.h"
#include "model/names/class_names.h"

namespace pennyweight {

namespace mx = mlx::core;

/// Compares the shapes of tensors with the numbers of config.json that mlx-lm's
/// class makes them from, as far as the table knows these. An axis whose keys
/// are not all there as whole numbers is let be: the class has a value of its
/// own then, or one for each layer. So is every axis where the config has a key
/// that no model was tried with.
class AxisCheck {
 public:
  /// Both must outlive this.
  AxisCheck(const ClassNames& names, const Json& config);

  /// What is wrong with a tensor's shape, as it is unpacked and by mlx-lm's
  /// name, for "tensor NAME ..."; empty: nothing that is known.
  std::string wrong(const std::string& name, const mx::Shape& shape) const;

 private:
  std::string asked_for(const ClassNames::Axis& axis, int extent) const;

  const ClassNames& names_;
  const Json& config_;
  bool knows_ = true;
};

}  // namespace pennyweight
