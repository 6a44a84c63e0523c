#pragma once

#include <initializer_list>
#include <string>

#include "core/json.h"

namespace pennyweight {

/// Refuses what could change the maths unseen. `reads` are the keys that the
/// family's file reads itself. A key of another structure whose value turns
/// it off (attention_bias: false) passes, as does what is known to be
/// harmless (token ids, dropout, versions) and anything null, false or empty.
/// Else: a not_supported Error that names the key.
void check_config_keys(
    const JsonView& config,
    const std::vector<const char*>& reads);

}  // namespace pennyweight
