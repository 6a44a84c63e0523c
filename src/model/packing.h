#pragma once

#include <functional>
#include <map>
#include <string>

#include "checkpoint/checkpoint.h"
#include "core/json.h"
#include "format/quant_spec.h"
#include "model/model.h"
#include "model/spec/decoder_spec.h"
#include "model/tensors.h"

namespace pennyweight {

/// How modules are packed, as their tensors show.
struct Packing {
  /// The entry that MLX would write, which may be empty; null where nothing is
  /// packed.
  Json common;
  bool published = false;  // packed by the model's publisher, as mxfp4
  bool is_lost = false;  // packed by MLX, though no entry of the config says so
};

/// Reads how modules are packed, and adds a note to the spec where the config
/// is wrong about it. not_supported Error for weights that another quantizer
/// packed and that are not expanded by the checkpoint, whatever the config
/// says; it names a tensor and the quantizer.
Packing read_packing(
    const Checkpoint& checkpoint,
    const ModelTensors& tensors,
    DecoderSpec& spec);

/// What `read` gives, which makes a model of the checkpoint's tensors. Where
/// that fails and the weights are packs that nobody here reads
/// (Checkpoint::unread_packs), a not_supported Error that says so: what is
/// missing or left over by names of a plain model is no news then.
Model or_unread_packs(
    const Checkpoint& checkpoint,
    const std::function<Model()>& read);

/// Sets Model::published_packed, and where that is true, the `published` maps
/// of the model's spec.
void settle_published(const Packing& packing, Model& model);

/// The entry of config.json that MLX writes for modules packed like this, at
/// least one: the width that most have, and the others' by name.
Json packed_entry(const std::map<std::string, QuantSpec>& quantized);

}  // namespace pennyweight
