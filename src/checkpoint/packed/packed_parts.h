#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/packed/packed_tensor.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

/// The tensors in a checkpoint's files.
struct StoredTensors {
  const std::map<std::string, TensorInfo>& infos;
  LoadStored load;
  /// Gives text to follow "tensor NAME is missing".
  std::function<std::string(const std::string& name)> about_missing;
  std::string folder;  // begins errors
};

/// How a checkpoint says its weights are packed.
struct PackedEntry {
  std::string method;  // who packed them, as a user reads it
  std::string origin;  // ".../config.json: quantization_config"
  Json settings;       // an object
};

/// What the function of a format works on: it finds tensors by the ends of
/// their names, checks them, and adds the matrices that they make.
class PackedParts {
 public:
  PackedParts(const StoredTensors& stored, const PackedEntry& entry)
      : stored_(stored), entry_(entry) {}

  const PackedEntry& entry() const {
    return entry_;
  }
  JsonView settings() const {
    return {entry_.settings, entry_.origin};
  }

  /// The names of untaken tensors that end with `suffix`, without it.
  std::vector<std::string> named(const std::string& suffix) const;
  /// The tensor of that name; null where there is none.
  const TensorInfo* find(const std::string& name) const;
  /// The tensor of that name, which `beside` needs. corrupt Error where there
  /// is none, or not_found where a file is missing, too.
  const TensorInfo& require(const std::string& name, const TensorInfo& beside)
      const;
  /// As require(); and a corrupt Error for scales of no floating type.
  const TensorInfo& require_scales(
      const std::string& name,
      const TensorInfo& beside) const;
  /// corrupt Error for codes that are neither a matrix nor a stack of them, or
  /// have too many columns; one of their values packs `packed` columns.
  void require_matrix(const TensorInfo& codes, int64_t packed = 1) const;
  /// corrupt Error for a tensor of another shape.
  void require_shape(const TensorInfo& info, const mx::Shape& shape) const;
  /// As require_shape(), but axes of extent 1 do not count.
  void require_size(const TensorInfo& info, const mx::Shape& shape) const;
  /// Throws a corrupt Error: "tensor NAME what".
  [[noreturn]] void wrong(const TensorInfo& info, const std::string& what)
      const;
  /// Throws a not_supported Error about `what` in the entry, which it names.
  [[noreturn]] void unknown(const std::string& what) const;
  /// The values of a small tensor of integers; corrupt Error for other types.
  std::vector<int64_t> integers(const TensorInfo& info) const;

  /// Adds a matrix, whose parts are then taken.
  void add(std::unique_ptr<PackedTensor> tensor);
  /// Takes a tensor that has no part in any matrix, and counts it.
  void drop(const std::string& name);
  /// Adds something that the user should be told of how the model is packed.
  void note(const std::string& text) {
    notes_.push_back(text);
  }

  std::map<std::string, std::unique_ptr<PackedTensor>> take_tensors() {
    return std::move(tensors_);
  }
  const std::set<std::string>& taken() const {
    return taken_;
  }
  int64_t dropped() const {
    return dropped_;
  }
  const std::vector<std::string>& notes() const {
    return notes_;
  }

 private:
  const StoredTensors& stored_;
  const PackedEntry& entry_;
  std::map<std::string, std::unique_ptr<PackedTensor>> tensors_;
  std::set<std::string> taken_;
  int64_t dropped_ = 0;
  std::vector<std::string> notes_;
};

inline int64_t divide_up(int64_t count, int64_t by) {
  return (count + by - 1) / by;
}

}  // namespace pennyweight
