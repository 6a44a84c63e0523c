#pragma once

#include <string>

namespace pennyweight {

/// mlx-lm's own calibration text, from its cache
/// (~/.cache/mlx-lm/calibration_v5.txt), where mlx-lm and the `pennyweight`
/// that pip installs put it. not_found where it is not there, with the
/// launcher's reason (PENNYWEIGHT_NO_TEXT); corrupt for what is no UTF-8.
std::string read_default_text();

}  // namespace pennyweight
