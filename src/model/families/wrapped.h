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

/// In the hub's newer layout: model.language_model.*, the head at the top.
std::string hub_name(const std::string& name);

/// hub_name(), or the name without language_model., as a language model alone
/// has it, where that is what the checkpoint has. A '#' stands for 0.
std::string found_name(const FamilyInput& input, const std::string& name);

/// The spec that `read` makes of `config` as the class has it, with its
/// tensors where `stored` says. The patch is that of `config`.
DecoderSpec read_language_model(
    const FamilyInput& input,
    const JsonView& config,
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput&),
    const StoredName& stored);

/// What stands under one of `parts` (each ends with a dot), or there under
/// model., is no language and is carried over under the former name.
void carry_parts(
    const FamilyInput& input,
    const std::vector<std::string>& parts,
    DecoderSpec& spec);

}  // namespace pennyweight
