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
  /// By module path (of list_stored_modules()); modules that are not here hold
  /// a float matrix.
  std::map<std::string, QuantSpec> quantized;
  /// Those are packed because their publisher trained them so: there is no
  /// fuller model.
  bool published_packed = false;
  /// Whether there was a fuller model, which somebody quantized.
  bool is_rounded() const {
    return !quantized.empty() && !published_packed;
  }
  /// The float type that holds most of the weights (the scales' type where
  /// they are packed).
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
/// the checkpoint is claimed exactly once, by name, shape and type. corrupt
/// Error for what is missing, left over or of another shape, naming it;
/// not_found for what is missing where a file is, too, naming that.
/// How weights are packed is what their tensors show: what the config says
/// beside that is ignored, with a note, and checkpoint.config() then holds the
/// truth. not_supported for weights that another quantizer packed. numeric for
/// norms, biases and other vectors that hold NaN or infinities.
///
/// A model_type that is not known is read as `assumed`; without one it is a
/// not_supported Error that names the families of which all tensors and config
/// keys are this model's. An output is then of the assumed type.
/// `provider`: see Checkpoint::open.
Model open_model(
    const fs::path& folder,
    const std::string& assumed = "",
    std::shared_ptr<ShardProvider> provider = nullptr);

/// The same, and of a model_type that is no family's, but whose class in mlx-lm
/// is known by its tensors' names, a model that can't be run
/// (DecoderSpec::names). open_model() refuses that (not_supported).
Model open_by_names(
    const fs::path& folder,
    const std::string& assumed = "",
    std::shared_ptr<ShardProvider> provider = nullptr);

/// What a module's tensors take up in the files, where a matrix that comes
/// packed is smaller than what it expands to.
struct ModuleSize {
  int64_t bytes = 0;       // all tensors, scales and biases included
  int64_t parameters = 0;  // as if not quantized
};

/// Size of the module (embedding, linear, head or norm) at `path`.
ModuleSize module_size(const Model& model, const std::string& path);

struct ModelSize {
  int64_t bytes = 0;
  int64_t parameters = 0;
  double bits_per_weight = 0;  // 8 * bytes / parameters, norms included
};

/// Of all claimed tensors (dropped ones are not counted).
ModelSize model_size(const Model& model);

}  // namespace pennyweight
