#pragma once

#include <string>
#include <vector>

#include "model/model.h"
#include "run/pins/pin.h"

namespace pennyweight {

/// A module that is packed as one, and what a user may call it.
struct NamedModule {
  ModuleSpec module;  // of list_stored_modules()
  /// Its path in mlx-lm; the checkpoint's, where that is another; the head's,
  /// where the embedding is the head.
  std::vector<std::string> names;
  /// Of a stack, the names of its matrices, list by list.
  std::vector<std::vector<std::string>> parts;
};

/// The modules of a model by name, in the order of the forward pass.
class NamedModules {
 public:
  explicit NamedModules(const Model& model);

  const std::vector<NamedModule>& all() const {
    return modules_;
  }
  /// What a pin is about. invalid_argument, by `where`, for one that is about
  /// nothing, with what there is; and for one that is about some matrices of a
  /// stack and no module. A --keep of what is carried over as it is finds
  /// nothing, and is none.
  std::vector<const NamedModule*> find(
      const WidthPin& pin,
      const std::string& where) const;

 private:
  [[noreturn]] void refuse_nothing(
      const WidthPin& pin,
      const std::string& where) const;
  std::string nearest_paths(const std::string& pattern) const;

  const Model& model_;
  std::vector<NamedModule> modules_;
};

}  // namespace pennyweight
