#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "checkpoint/packed/packed_parts.h"
#include "checkpoint/quantization_entries.h"

namespace pennyweight {

/// Whether a tensor belongs to a packed matrix and can be nothing else, by its
/// name and type: all such matrices but MLX's own have a part that is so.
bool is_packed_part(const std::string& name, ByteType byte_type);

/// The matrices of a checkpoint that another quantizer has packed, as tensors
/// X.weight that are expanded when they are read. In memory is only what
/// describes them.
class PackedSource {
 public:
  /// Finds the packed matrices. Null where the entries name no format that is
  /// read, or no tensor is packed. corrupt Error that names a tensor which is
  /// missing, left over or of another shape than its matrix and entry ask for;
  /// not_supported Error that names what in the entry is not known.
  static std::unique_ptr<PackedSource> find(
      const QuantizationEntries& entries,
      const StoredTensors& stored);

  /// The quantizer: "gptq".
  const std::string& method() const {
    return entry_.method;
  }
  /// The packed tensor of that name; null where there is none.
  const PackedTensor* tensor(const std::string& name) const;
  const std::map<std::string, std::unique_ptr<PackedTensor>>& tensors() const {
    return tensors_;
  }
  /// Names of tensors in the files that are no tensors of the model: parts of
  /// packed matrices, and scales of activations and caches.
  const std::set<std::string>& taken() const {
    return taken_;
  }

  /// One line for the user.
  std::string describe() const;
  /// The object `packed_source` of a report: packed_by, matrices, forms (how
  /// many of each), stored_bytes, expanded_bytes, dropped (how many scales of
  /// activations and caches), and notes where there are some.
  Json json() const;
  /// The entry's settings, which with the stored bytes decide all values.
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
