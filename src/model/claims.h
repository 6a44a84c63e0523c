#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/json.h"
#include "model/spec/decoder_spec.h"
#include "model/tensors.h"

namespace pennyweight {

/// Whether weights may be of this type.
bool is_stored_float(mx::Dtype dtype);

/// Claims a model's tensors one by one; finish() refuses those that were not
/// claimed. corrupt Error for a tensor of another shape or type than the spec
/// says, for one that is claimed twice, and for one that is missing, which is
/// not_found where files are missing.
class Claims {
 public:
  Claims(const Checkpoint& checkpoint, const ModelTensors& tensors)
      : checkpoint_(checkpoint), tensors_(tensors) {}

  /// The module's width where it is packed, as the config's quantization
  /// (`common`, null: there is none) or its shapes say.
  std::optional<QuantSpec> claim_module(
      const Json& common,
      const ModuleSpec& module);
  void claim_norm(const NormSpec& norm);
  void claim_float(const std::string& name, const std::vector<int64_t>& shape);

  bool is_claimed(const std::string& name) const {
    return claimed_.contains(name);
  }
  /// Takes a tensor out that the model has no use for.
  void leave(const std::string& name) {
    claimed_.insert(name);
  }
  /// corrupt Error for a tensor that was neither claimed nor left.
  void finish() const;
  /// The type that most bytes of claimed floats have.
  mx::Dtype main_dtype() const;

 private:
  const TensorInfo& claim(
      const std::string& name,
      const std::vector<int64_t>& shape);
  void claim_packed(const ModuleSpec& module, const QuantSpec& spec);
  std::string about_names(const std::string& name) const;
  [[noreturn]] void fail(const std::string& what) const;

  const Checkpoint& checkpoint_;
  const ModelTensors& tensors_;
  std::set<std::string> claimed_;
  std::map<mx::Dtype::Val, uint64_t> count_;  // bytes of floats, by type
};

}  // namespace pennyweight
