#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What is known of a model by the names of its tensors alone (ClassNames): its
/// modules and its other tensors. Such a model can't be run.
struct NamesSpec {
  std::vector<ModuleSpec> modules;  // stored modules: a stack is one
  std::vector<ParameterSpec> parameters;
  int layers = 0;
  /// Whether mlx_lm.convert's mixed recipes can be used for such a model.
  bool recipes = false;
  bool tied = false;  // whether the embedding is the head, too
};

/// Whether the checkpoint's model_type is known by the names of its tensors.
bool is_known_by_names(const Checkpoint& checkpoint);

/// Why it is not, where mlx-lm has a class for it that no family is read as;
/// otherwise empty.
std::string why_not_by_names(const Checkpoint& checkpoint);

/// One line about what can be done with such a model: "model_type "x" is ...".
std::string about_names(const Checkpoint& checkpoint);

/// A spec with `names`, and with `sources` and `dropped` as a family fills
/// them. Shapes are taken from the checkpoint, and compared with the config's
/// sizes as far as AxisCheck knows them. A tensor that the table does not know
/// is left out here, and so refused when the model's tensors are claimed.
///
/// Errors: invalid_argument for a model that is not known by names;
/// not_supported for a config by which mlx-lm changes weights in a way that is
/// not known; corrupt for a tensor that is missing (not_found where a file is
/// missing, too), of another form than its name stands for, or of another shape
/// than the config gives it.
DecoderSpec read_names_spec(const Checkpoint& checkpoint);

}  // namespace pennyweight
