#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "checkpoint/packed/packed_parts.h"
#include "checkpoint/quantization_entries.h"

namespace pennyweight {

/// A checkpoint's matrices that another quantizer has packed, as tensors
/// X.weight, which are expanded when they are read. Nothing is held but what
/// describes them.
class PackedSource {
 public:
  /// Null where the entries name no format that is read, or no tensor is
  /// packed. corrupt Error that names a tensor that is missing, of another
  /// shape than its matrix and entry ask for, or left over; not_supported Error
  /// that names what of the entry is not known.
  static std::unique_ptr<PackedSource> find(
      const QuantizationEntries& entries,
      const StoredTensors& stored);

  /// Who packed them, "gptq".
  const std::string& method() const {
    return entry_.method;
  }
  /// Null for a name that is none of its tensors'.
  const PackedTensor* tensor(const std::string& name) const;
  const std::map<std::string, std::unique_ptr<PackedTensor>>& tensors() const {
    return tensors_;
  }
  /// Names that the files have and that stand for no tensor of the model: what
  /// the matrices are stored as, and scales of activations and caches.
  const std::set<std::string>& taken() const {
    return taken_;
  }

  /// In one line, for the user.
  std::string describe() const;
  /// packed_by, matrices, forms (how many of each), stored_bytes,
  /// expanded_bytes, dropped (scales of activations and caches), and notes
  /// where there are some.
  Json json() const;
  /// The entry, which together with the stored bytes decides all values.
  const Json& settings() const {
    return entry_.settings;
  }

 private:
  PackedSource() = default;

  PackedEntry entry_;
  std::map<std::string, std::unique_ptr<PackedTensor>> tensors_;
  std::set<std::string> taken_;
  uint64_t stored_bytes_ = 0;
  int64_t dropped_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace pennyweight
