#pragma once

#include "model/config/class_config.h"

namespace pennyweight {

/// Notes the keys by which transformers would compute something else, and
/// which the class does not read. All others that it does not read are of
/// training, generation or bookkeeping: nothing is said of them.
void note_unread_keys(const ModelClass& type, ClassConfig& config);

}  // namespace pennyweight
