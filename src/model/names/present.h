#pragma once

#include <functional>
#include <string>

#include "model/names/class_names.h"
#include "model/names/names_spec.h"
#include "model/tensors.h"

namespace pennyweight {

/// Calls `missing`, which throws, with the name of the first tensor that is not
/// there and that mlx-lm can't load without: what every such model has, the
/// head where it is a module, and in each layer what always stands beside
/// another of its tensors.
void require_present(
    const ModelTensors& tensors,
    const ClassNames& names,
    const NamesSpec& spec,
    const std::function<void(const std::string& name)>& missing);

}  // namespace pennyweight
