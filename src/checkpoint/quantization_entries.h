#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"

namespace pennyweight {

/// What a folder says of how its weights are packed, true or not. mlx-lm reads
/// `quantization`, then `quantization_config`, at the top of config.json, then
/// in its text_config, then hf_quant_config.json (mlx_lm/utils.py, load_model).
struct QuantizationEntries {
  /// MLX's own: an object with group_size and bits; null where there is none.
  Json mlx;
  /// Who else packed them ("gptq", "bitsandbytes", ...); empty for nobody.
  std::string method;
  /// The entry of whoever that is, and where it stands ("config.json:
  /// quantization_config"); null for nobody, or one of another form.
  Json foreign;
  std::string foreign_place;
  /// All entries in words, "quantization_config: gptq".
  std::vector<std::string> found;
};

QuantizationEntries read_quantization_entries(
    const Json& config,
    const std::filesystem::path& folder);

/// The config without any such entry, at its top or in its text_config.
Json without_quantization(Json config);

}  // namespace pennyweight
