#pragma once

#include <string>

#include "checkpoint/packed/packed_parts.h"

namespace pennyweight {

/// How the weights of one quantizer are read.
struct PackedFormat {
  /// Adds all matrices that it has packed. Errors are those of PackedParts.
  void (*add)(PackedParts& parts);
  /// The end of the name of an FP8 matrix's scales.
  const char* scales;
};

/// The format that an entry of config.json names; null for one that is not
/// read.
const PackedFormat* packed_format(const Json& entry);

/// The format of MLX's nvfp4 modules with a global_scale, which mlx-lm runs
/// packed.
const PackedFormat* global_scale_format();

/// The object with the settings in an entry: the entry itself, or one level
/// down as in hf_quant_config.json.
const Json& packed_settings(const Json& entry);

/// Adds the matrices of compressed-tensors, by the schemes that its entry
/// lists.
void add_compressed_tensors(PackedParts& parts);

}  // namespace pennyweight
