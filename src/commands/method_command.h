#pragma once

#include "commands/command.h"
#include "method/method.h"

namespace pennyweight {

/// The command of a method: model to model, block by block.
Command method_command(const MethodEntry& entry);

}  // namespace pennyweight
