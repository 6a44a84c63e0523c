#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/tensor_info.h"
#include "core/files/dir_handle.h"
#include "core/json_fwd.h"

namespace pennyweight {

namespace fs = std::filesystem;

class PackedSource;
class PackedTensor;

/// A checkpoint folder, read lazily. open() reads config.json and the header of
/// every model*.safetensors, as mlx-lm does, and of what else the weight index
/// names, and checks them: what is cut short, overlapping or points outside the
/// folder is a corrupt Error that names file and tensor. The files decide and
/// not the index, of which what is wrong is ignored, with a note. A tensor that
/// stands in two files is the one that the index places; where it says nothing,
/// equal ones are one, and different ones a corrupt Error that names both
/// files. Where the index holds and another file repeats tensors or is damaged,
/// that file is left out, with a note. Nothing from the folder is ever
/// executed.
///
/// Matrices that another quantizer has packed (packed/packed_source.h) are
/// shown as what they expand to, under the name X.weight, and the tensors that
/// they are stored as are not.
class Checkpoint {
 public:
  static Checkpoint open(const fs::path& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  const fs::path& folder() const;
  /// config.json, tagged floats decoded (untag_floats).
  const Json& config() const;
  /// Puts the truth of how weights are packed into config(), in place of what
  /// stood there: MLX's entry, or null for plain weights.
  void settle_quantization(const Json& entry);
  /// What is not as the folder says, for the user.
  const std::vector<std::string>& notes() const;
  /// Whether files are missing (or could not be read) that hold tensors.
  bool lacks_files() const;
  /// To follow "tensor NAME is missing": which file the index places it in, and
  /// what to do about that; empty where all files are there.
  std::string about_missing(const std::string& name) const;
  /// Who packed the matrices, and how; null where they are as stored.
  const PackedSource* packed() const;
  /// Sorted by name.
  const std::map<std::string, TensorInfo>& tensors() const;
  bool contains(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const;  // not_found

  /// The tensor as a view of the mapped file, without a copy where alignment
  /// allows; its pages are given back when the last reference goes. The array
  /// stays valid after the Checkpoint is gone. A packed one is expanded at
  /// once, and of entries these alone.
  mx::array load(const std::string& name) const;
  /// Entries first .. first + count - 1 along the first axis, a view with pages
  /// of its own: they are given back when it goes.
  mx::array load_rows(const std::string& name, int first, int count) const;
  /// The tensors that the files have of it: itself, or a packed one's parts.
  std::vector<std::string> stored_parts(const std::string& name) const;
  /// Of one of these, and so are the next two.
  const TensorInfo& stored_info(const std::string& name) const;
  /// Shows `use` bytes begin .. end - 1 of a tensor as the file has them, whose
  /// pages are given back then. From any thread.
  void read(
      const std::string& name,
      uint64_t begin,
      uint64_t end,
      const std::function<void(const char* data, size_t bytes)>& use) const;

  /// Of the file that a tensor is read from, when it was opened.
  const FileStamp& stamp(const std::string& name) const;
  /// io Error that names a file which has been written to since it was opened:
  /// what was read of it may be of either state.
  void require_unchanged() const;

 private:
  struct Impl;
  static Checkpoint open_folder(const fs::path& folder);
  const PackedTensor* find_packed(const std::string& name) const;
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// numeric Error that names `name` and how many NaN and infinite values a
/// floating tensor, evaluated and row-contiguous, holds.
void require_finite(const mx::array& tensor, const std::string& name);

}  // namespace pennyweight
