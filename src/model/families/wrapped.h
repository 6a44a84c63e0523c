#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/families/family.h"

namespace pennyweight {

/// Where mlx-lm keeps the language model of one of several modalities.
inline const std::string kWrapped = "language_model.";

/// The name in the checkpoint of a tensor that mlx-lm calls language_model.*.
using StoredName = std::function<std::string(const std::string& name)>;

/// The name in the hub's newer layout: model.language_model.*, or for the head
/// lm_head.*.
std::string hub_name(const std::string& name);

/// The first of these names that the checkpoint has: `name`, hub_name(name),
/// and the name without language_model., as in a language model alone; or
/// `name` where it has none. A '#' in it is looked up as 0.
std::string found_name(const FamilyInput& input, const std::string& name);

/// The spec that `read` makes of `config`, an inner one, with the keys and
/// defaults of the class `model_class`. Its tensors have the names in the
/// checkpoint that `stored` gives; its patch is one of `config`.
DecoderSpec read_language_model(
    const FamilyInput& input,
    const JsonView& config,
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput&),
    const StoredName& stored);

/// Has tensors under one of `parts` (each ends with a dot), which are no part
/// of the language model, carried over; those under model.PART lose the model.
void carry_parts(
    const FamilyInput& input,
    const std::vector<std::string>& parts,
    DecoderSpec& spec);

}  // namespace pennyweight
