#pragma once

#include <string>
#include <vector>

#include "method/method.h"

namespace pennyweight {

/// All of methods.def, in its order.
const std::vector<MethodEntry>& methods();

/// invalid_argument Error that lists the names there are.
const MethodEntry& find_method(const std::string& name);

}  // namespace pennyweight
