#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/packed/packed_tensor.h"
#include "core/json.h"

namespace pennyweight {

/// What a checkpoint's files hold.
struct StoredTensors {
  const std::map<std::string, TensorInfo>& infos;
  LoadStored load;
  /// To follow "tensor NAME is missing".
  std::function<std::string(const std::string& name)> about_missing;
  std::string folder;
};

/// How a checkpoint says its weights are packed.
struct PackedEntry {
  std::string method;  // who packed them, as a user reads it
  std::string origin;  // ".../config.json: quantization_config"
  Json settings;       // an object
};

/// What a format's reader works on: it looks for tensors by the ends of their
/// names, checks them and adds what they make. A format is a function that
/// does so for all matrices of its kind.
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

  /// The names that end so, without that, of tensors that nobody has taken.
  std::vector<std::string> named(const std::string& suffix) const;
  /// Null where there is none.
  const TensorInfo* find(const std::string& name) const;
  /// corrupt Error where there is none, or not_found where a file is missing,
  /// too: `beside` needs it.
  const TensorInfo& require(const std::string& name, const TensorInfo& beside)
      const;
  /// The same of scales, which must be of a floating type.
  const TensorInfo& require_scales(
      const std::string& name,
      const TensorInfo& beside) const;
  /// corrupt Error for what is no matrix nor a stack of them, or of more
  /// columns than any: `packed` of them stand in one of its values.
  void require_matrix(const TensorInfo& codes, int64_t packed = 1) const;
  /// corrupt Error for another shape.
  void require_shape(const TensorInfo& info, const mx::Shape& shape) const;
  /// The same where ones in front or behind do not count.
  void require_size(const TensorInfo& info, const mx::Shape& shape) const;
  /// corrupt Error: "tensor NAME what".
  [[noreturn]] void wrong(const TensorInfo& info, const std::string& what)
      const;
  /// not_supported Error that names the entry.
  [[noreturn]] void unknown(const std::string& what) const;
  /// The values of a small tensor of integers.
  std::vector<int64_t> integers(const TensorInfo& info) const;

  void add(std::unique_ptr<PackedTensor> tensor);
  /// A tensor that says nothing of weights.
  void drop(const std::string& name);
  /// What a user is told beside who packed the model.
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

/// "[2, 3]".
std::string packed_shape_text(const mx::Shape& shape);

inline int64_t divide_up(int64_t count, int64_t by) {
  return (count + by - 1) / by;
}

}  // namespace pennyweight
