#pragma once

#include <string>

namespace pennyweight {

struct DefaultText {
  std::string text;
  std::string warning;  // empty where there is nothing to say
};

/// mlx-lm's own calibration text: from its cache folder
/// (~/.cache/mlx-lm/calibration_v5.txt), else fetched and put there. io or
/// not_found where it can't be had; never tries the network where
/// HF_HUB_OFFLINE is set.
DefaultText read_default_text();

}  // namespace pennyweight
