#pragma once

#include "model/config/class_config.h"

namespace pennyweight {

/// Adds a note for each key that the class does not read though transformers
/// computes something else by it. Other keys that the class does not read are
/// about training, generation or bookkeeping, and get none.
void note_unread_keys(const ModelClass& type, ClassConfig& config);

}  // namespace pennyweight
