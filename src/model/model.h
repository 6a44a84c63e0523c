#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "format/quant_spec.h"
#include "model/spec/decoder_spec.h"
#include "model/tensors.h"

namespace pennyweight {

/// A checkpoint whose structure is known and whose every tensor is claimed.
struct Model {
  Checkpoint checkpoint;
  DecoderSpec spec;
  ModelTensors tensors;
  /// The packed modules, by their path in list_stored_modules(). A module that
  /// is not here holds a float matrix.
  std::map<std::string, QuantSpec> quantized;
  /// Whether those are packed because their publisher trained them so: there is
  /// no model of higher precision.
  bool published_packed = false;
  /// Whether somebody quantized this model from one of higher precision.
  bool is_rounded() const {
    return !quantized.empty() && !published_packed;
  }
  /// The float type that holds most of the model's bytes: of the weights, or
  /// of the scales where weights are packed.
  mx::Dtype dtype;

  mx::array load(const std::string& tensor) const {
    return tensors.load(checkpoint, tensor);
  }
  mx::array load_part(const std::string& tensor, int64_t part) const {
    return tensors.load_part(checkpoint, tensor, part);
  }
  mx::array load_rows(const std::string& tensor, int first, int count) const {
    return tensors.load_rows(checkpoint, tensor, first, count);
  }
};

/// Opens a folder: config and tensor names give the spec, then each tensor of
/// the checkpoint is claimed exactly once, by name, shape and type.
///
/// The tensors decide how weights are packed: an entry of the config that
/// contradicts them is ignored, with a note, and checkpoint.config() is made to
/// agree with them.
///
/// A model_type that is not known is read as the family `assumed`, and an
/// output has that type. `provider`: see Checkpoint::open.
///
/// Errors, each of which names its tensor, key or file:
/// - corrupt: a tensor is missing, left over or of another shape or type;
/// - not_found: a tensor is missing, and so is a file that may hold it;
/// - not_supported: another quantizer packed the weights in a form that is not
///   read, or the model_type is not known and `assumed` is empty (it then names
///   the families that would read all of this model's tensors and keys);
/// - numeric: a norm, a bias or another vector holds NaN or infinities.
Model open_model(
    const fs::path& folder,
    const std::string& assumed = "",
    std::shared_ptr<ShardProvider> provider = nullptr);

/// As open_model(), but it also takes a model_type of no family whose class in
/// mlx-lm is known by its tensors' names: a model that can't be run
/// (DecoderSpec::names), which open_model() refuses with not_supported.
Model open_by_names(
    const fs::path& folder,
    const std::string& assumed = "",
    std::shared_ptr<ShardProvider> provider = nullptr);

/// What a module's tensors take up in the files.
struct ModuleSize {
  int64_t bytes = 0;       // of all tensors as stored, scales and biases too
  int64_t parameters = 0;  // as many as the module has when it is not quantized
};

/// Size of the module (embedding, linear, head or norm) at `path`.
ModuleSize module_size(const Model& model, const std::string& path);

struct ModelSize {
  int64_t bytes = 0;
  int64_t parameters = 0;
  double bits_per_weight = 0;  // 8 * bytes / parameters, norms included
};

/// The size of all claimed tensors; dropped and carried ones are not counted.
ModelSize model_size(const Model& model);

}  // namespace pennyweight
