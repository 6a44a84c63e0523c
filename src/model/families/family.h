#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What a family reads its spec from: the config, and the names and shapes of
/// the checkpoint's tensors.
struct FamilyInput {
  /// The config with the keys and defaults of the family's class in mlx-lm
  /// (class_config.h).
  JsonView config;
  std::function<bool(const std::string& tensor)> has_tensor;
  std::function<std::vector<std::string>(const std::string& prefix)>
      tensors_under;
  /// The shape of a tensor; empty for one that is not there.
  std::function<mx::Shape(const std::string& tensor)> shape_of;
  /// What all paths of the spec begin with. Names that has_tensor is asked for
  /// are without it.
  std::string prefix{};
  /// The config before the class's defaults were added.
  const Json* given = nullptr;
  /// Whether weight files are missing, which may hold tensors that seem absent.
  bool lacks_files = false;

  /// The same with another config, such as a changed copy of its own, which
  /// must outlive it.
  FamilyInput like(const Json& own) const {
    FamilyInput other = *this;
    other.config = config.like(own);
    return other;
  }
};

/// A family: it turns a config into the spec of what a class of mlx-lm
/// computes.
struct Family {
  const char* model_type;
  const char* model_class;  // in class_keys.h's table
  DecoderSpec (*read)(const FamilyInput& input);
};

#define PENNYWEIGHT_FAMILY(type, model_class, name) \
  DecoderSpec read_##name(const FamilyInput& input);
#include "model/families/families.def"
#undef PENNYWEIGHT_FAMILY

/// All of families.def, in its order.
const std::vector<Family>& families();

/// Gives input.config the keys and defaults of the class, and has `read` make a
/// spec of it. The spec's config_patch and notes get those of the config, too.
/// not_supported Error for a key that the class reads and `read` does not.
DecoderSpec read_as(
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput& input),
    FamilyInput input);

}  // namespace pennyweight
