#pragma once

#include <map>
#include <string>

#include "checkpoint/checkpoint.h"
#include "core/json.h"
#include "format/quant_spec.h"
#include "model/model.h"
#include "model/spec/decoder_spec.h"
#include "model/tensors.h"

namespace pennyweight {

/// How modules are packed, as their tensors show; what the config says of it is
/// the truth only where they agree.
struct Packing {
  Json common;  // MLX's entry, maybe empty; null: nothing is packed
  bool published = false;
  bool is_lost = false;  // packed by MLX, and no entry says so
};

/// Adds a note to the spec where the config is wrong. not_supported for weights
/// that another quantizer packed, whatever the config says; it names a tensor
/// and who it was.
Packing read_packing(
    const Checkpoint& checkpoint,
    const ModelTensors& tensors,
    DecoderSpec& spec);

/// Whether the publisher packed what is packed, and if so which modules those
/// are, in the model and its spec.
void settle_published(const Packing& packing, Model& model);

/// MLX's entry for modules (not none) as they are packed: what holds for most,
/// and the others by name.
Json packed_entry(const std::map<std::string, QuantSpec>& quantized);

}  // namespace pennyweight
