#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"

namespace pennyweight {

/// The entries of a folder about how its weights are packed, whether they are
/// true or not. mlx-lm reads `quantization`, then `quantization_config`, at the
/// top of config.json, then in its text_config, then hf_quant_config.json
/// (mlx_lm/utils.py, load_model).
struct QuantizationEntries {
  /// The first entry of MLX's form, an object with group_size and bits; or
  /// null.
  Json mlx;
  /// The quantizer that the first entry of another form names ("gptq",
  /// "bitsandbytes", ...); empty where there is no such entry.
  std::string method;
  /// That entry, which may be no object; null where there is none.
  Json foreign;
  /// Where that entry stands: "config.json: quantization_config".
  std::string foreign_place;
  /// All entries in words: "quantization_config: gptq".
  std::vector<std::string> found;
};

/// Reads the entries of a config and of the files beside it in `folder`.
QuantizationEntries read_quantization_entries(
    const Json& config,
    const std::filesystem::path& folder);

/// Who packed weights by an entry, in words: "mlx", "gptq".
std::string packed_by(const Json& entry);

/// The config without any entry about packed weights, at its top or in its
/// text_config.
Json without_quantization(Json config);

}  // namespace pennyweight
