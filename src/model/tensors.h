#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// A checkpoint's tensors in the form, and by the names, that mlx-lm's
/// sanitize gives them.
class ModelTensors {
 public:
  /// `sources` are by mlx-lm's name; those of which the checkpoint has nothing
  /// are left out. A corrupt Error names a source that is missing in a stack or
  /// has a shape that does not fit.
  ModelTensors(
      const Checkpoint& checkpoint,
      std::map<std::string, TensorSource> sources);

  /// All tensors by mlx-lm's name. The file of a stack is that of its first
  /// part.
  const std::map<std::string, TensorInfo>& all() const {
    return infos_;
  }
  bool contains(const std::string& name) const {
    return infos_.contains(name);
  }
  const TensorInfo& info(const std::string& name) const;  // not_found

  /// Names of the tensors in the checkpoint's files that all these are made of.
  std::set<std::string> stored(const Checkpoint& checkpoint) const;

  /// Names of the tensors in the files that the tensor `name` is made of.
  std::vector<std::string> stored(
      const Checkpoint& checkpoint,
      const std::string& name) const;

  /// How many bytes of the files are the tensor's: for a matrix that comes
  /// packed, its share of the packed tensors.
  uint64_t stored_bytes(const Checkpoint& checkpoint, const std::string& name)
      const;

  /// Whether the tensor's rows are those of a tensor in the checkpoint, so that
  /// some of them can be read without the others.
  bool is_stored_so(const std::string& name) const {
    const auto it = sources_.find(name);
    return it == sources_.end() || it->second.keeps_rows();
  }
  /// The tensor: a view of the mapped file where the checkpoint has it in this
  /// form.
  mx::array load(const Checkpoint& checkpoint, const std::string& name) const;
  /// Entry `part` of the tensor along its first axis.
  mx::array load_part(
      const Checkpoint& checkpoint,
      const std::string& name,
      int64_t part) const;
  /// Entries first .. first + count - 1 along the first axis. No more is read
  /// than the tensor's form asks for.
  mx::array load_rows(
      const Checkpoint& checkpoint,
      const std::string& name,
      int first,
      int count) const;

 private:
  /// Entry `part`, read without the others; absent where the form of the stored
  /// tensor does not allow that.
  std::optional<mx::array> load_alone(
      const Checkpoint& checkpoint,
      const std::string& name,
      int64_t part) const;

  std::map<std::string, TensorSource> sources_;  // those that are used
  std::map<std::string, TensorInfo> infos_;
};

}  // namespace pennyweight
