#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "core/json_fwd.h"

namespace pennyweight {

namespace mx = mlx::core;

/// Where a method that goes over all blocks again and again puts what it has
/// come to, and finds it after a kill.
class StateStore {
 public:
  virtual ~StateStore() = default;

  /// What there is after `step` steps. A later state replaces it. io Error on a
  /// full disk.
  virtual void save_state(
      int64_t step,
      const std::map<std::string, mx::array>& tensors,
      const Json& figures) = 0;
  /// The step of the state that is there.
  virtual std::optional<int64_t> state() const = 0;
  virtual std::map<std::string, mx::array> load_state() const = 0;
  virtual Json load_state_report() const = 0;
};

}  // namespace pennyweight
