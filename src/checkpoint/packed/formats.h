#pragma once

#include <string>

#include "checkpoint/packed/packed_parts.h"

namespace pennyweight {

/// A quantizer whose weights are read.
struct PackedFormat {
  /// Adds what it has packed: PackedParts' errors.
  void (*add)(PackedParts& parts);
  /// How the name of an FP8 matrix's scales ends.
  const char* scales;
};

/// The format that an entry of config.json names; null for one that is not
/// read.
const PackedFormat* packed_format(const Json& entry);

/// MLX's modules with a global_scale, which mlx-lm itself runs as they are.
const PackedFormat* global_scale_format();

/// The object of an entry that has its settings: hf_quant_config.json has them
/// one level down.
const Json& packed_settings(const Json& entry);

void add_compressed_tensors(PackedParts& parts);

}  // namespace pennyweight
