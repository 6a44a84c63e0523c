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
  /// A stack of which a source is missing, or of another shape, is a corrupt
  /// Error that names it.
  ModelTensors(
      const Checkpoint& checkpoint,
      std::map<std::string, TensorSource> sources);

  /// Sorted by name. A stack's file is its first part's.
  const std::map<std::string, TensorInfo>& all() const {
    return infos_;
  }
  bool contains(const std::string& name) const {
    return infos_.contains(name);
  }
  const TensorInfo& info(const std::string& name) const;  // not_found

  /// The tensors of the checkpoint's files that these are made of.
  std::set<std::string> stored(const Checkpoint& checkpoint) const;

  /// Those that one is made of.
  std::vector<std::string> stored(
      const Checkpoint& checkpoint,
      const std::string& name) const;

  /// Its bytes in the checkpoint's files: of a matrix that comes packed, its
  /// share of these.
  uint64_t stored_bytes(const Checkpoint& checkpoint, const std::string& name)
      const;

  /// Whether its rows are the checkpoint's, so that some of them can be read.
  bool is_stored_so(const std::string& name) const {
    const auto it = sources_.find(name);
    return it == sources_.end() || it->second.keeps_rows();
  }
  /// A view of the mapped file where it is as the checkpoint has it.
  mx::array load(const Checkpoint& checkpoint, const std::string& name) const;
  /// Entry `part` along the first axis.
  mx::array load_part(
      const Checkpoint& checkpoint,
      const std::string& name,
      int64_t part) const;
  /// Entries first .. first + count - 1 along it; the fewest are read that the
  /// tensor's form allows.
  mx::array load_rows(
      const Checkpoint& checkpoint,
      const std::string& name,
      int first,
      int count) const;

 private:
  /// Entry `part` where its rows of the stored tensor can be read alone.
  std::optional<mx::array> load_alone(
      const Checkpoint& checkpoint,
      const std::string& name,
      int64_t part) const;

  std::map<std::string, TensorSource> sources_;  // that apply
  std::map<std::string, TensorInfo> infos_;
};

}  // namespace pennyweight
