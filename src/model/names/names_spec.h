#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// All that is known of a model by the names of its tensors (ClassNames): what
/// is packed, and what else there is. Nothing of it can be run.
struct NamesSpec {
  std::vector<ModuleSpec> modules;  // each whole: a stack is one
  std::vector<ParameterSpec> parameters;
  int layers = 0;
  /// Whether mlx_lm.convert's mixed recipes are for such a model.
  bool recipes = false;
  bool tied = false;
};

/// Whether a model_type is known by the names of its tensors.
bool is_known_by_names(const Checkpoint& checkpoint);

/// Why not, of one that mlx-lm has a class for and no family is read as; else
/// empty.
std::string why_not_by_names(const Checkpoint& checkpoint);

/// In one line, what that comes to; "model_type "x" is ...".
std::string about_names(const Checkpoint& checkpoint);

/// A spec with `names`, and with `sources` and `dropped` as a family fills
/// them. Shapes are the checkpoint's own: what of them the config decides is
/// not compared. invalid_argument for one that is not known by names,
/// not_supported for a config by which mlx-lm changes weights in a way that is
/// not known; corrupt (not_found where a file is missing, too) for a tensor
/// that is missing, or of another form than its name stands for. A tensor that
/// nobody knows is left to whom the spec is claimed by.
DecoderSpec read_names_spec(const Checkpoint& checkpoint);

}  // namespace pennyweight
