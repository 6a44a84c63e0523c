#pragma once

#include <functional>
#include <string>

#include "model/names/class_names.h"
#include "model/names/names_spec.h"
#include "model/tensors.h"

namespace pennyweight {

/// Calls `missing`, which throws, with the name of the first absent tensor
/// without which mlx-lm can't load the model: one that every such model has,
/// the head where it is a module, or one that always stands beside another
/// tensor of its layer.
void require_present(
    const ModelTensors& tensors,
    const ClassNames& names,
    const NamesSpec& spec,
    const std::function<void(const std::string& name)>& missing);

}  // namespace pennyweight
