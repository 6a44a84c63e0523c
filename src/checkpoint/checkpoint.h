#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/shard_provider.h"
#include "checkpoint/tensor_info.h"
#include "core/files/dir_handle.h"
#include "core/json_fwd.h"

namespace pennyweight {

namespace fs = std::filesystem;

class PackedSource;
class PackedTensor;
struct QuantizationEntries;

/// A checkpoint folder, read lazily. open() reads and checks config.json and
/// the header of each model*.safetensors, as mlx-lm does, and of other files
/// that the weight index names. A file that is cut short, tensors that overlap
/// and a name that points outside the folder are corrupt Errors that name file
/// and tensor. Nothing from the folder is ever executed.
///
/// The files decide which tensors there are, and not the index:
/// - where the index is wrong it is ignored, with a note;
/// - of a tensor that stands in two files the one that the index places is
///   taken; where it places neither, they must be equal, or it is a corrupt
///   Error that names both files;
/// - where the index is right in all, a file that it does not name and that
///   repeats tensors or is damaged is left out, with a note.
///
/// A matrix that another quantizer has packed (packed/packed_source.h) is shown
/// as it expands, under the name X.weight; the tensors that it is stored as are
/// not shown.
class Checkpoint {
 public:
  /// `provider` brings the files, where the folder has only stubs of them.
  static Checkpoint open(
      const fs::path& folder,
      std::shared_ptr<ShardProvider> provider = nullptr);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  const fs::path& folder() const;
  /// config.json, with its tagged floats decoded (untag_floats).
  const Json& config() const;
  /// Replaces all entries of config() about packed weights by `entry`, which is
  /// MLX's; null for plain weights.
  void settle_quantization(const Json& entry);
  /// What the folder's entries about packed weights said when it was opened,
  /// true or not.
  const QuantizationEntries& quantization_entries() const;
  /// Notes for the user about what in the folder contradicts itself.
  const std::vector<std::string>& notes() const;
  /// Whether files that hold tensors are missing or were left out.
  bool lacks_files() const;
  /// Text to follow "tensor NAME is missing": the file in which the index
  /// places it, and what to do. Empty where all files are there.
  std::string about_missing(const std::string& name) const;
  /// How another quantizer packed the matrices; null where none did.
  const PackedSource* packed() const;
  /// Whose packs these are, where nobody here reads them, and a tensor that
  /// shows it: "quantized by "marlin" (tensor NAME)"; else empty. A hint only:
  /// the folder may be one of plain weights that says so still.
  std::string unread_packs() const;
  /// All tensors by name.
  const std::map<std::string, TensorInfo>& tensors() const;
  bool contains(const std::string& name) const;
  /// not_found Error for a name that is not in tensors().
  const TensorInfo& info(const std::string& name) const;

  /// The tensor as a view of the mapped file, without a copy where alignment
  /// allows; its pages are given back when the last reference goes. The array
  /// stays valid after the Checkpoint is gone. A packed tensor is expanded
  /// before this returns.
  mx::array load(const std::string& name) const;
  /// Entries first .. first + count - 1 along the first axis: a view whose
  /// pages are given back when it goes. Of a packed tensor these alone are
  /// expanded.
  mx::array load_rows(const std::string& name, int first, int count) const;
  /// Names of the tensors in the files that a tensor is stored as: its own, or
  /// those of a packed one's parts.
  std::vector<std::string> stored_parts(const std::string& name) const;
  /// All tensors of the files, by the names that they have there.
  const std::map<std::string, TensorInfo>& stored_tensors() const;
  /// Describes a tensor of stored_parts(). read() and stamp() take such names,
  /// too.
  const TensorInfo& stored_info(const std::string& name) const;
  /// Calls `use` with bytes begin .. end - 1 of a tensor as the file has them,
  /// and gives their pages back. May be called from any thread.
  void read(
      const std::string& name,
      uint64_t begin,
      uint64_t end,
      const std::function<void(const char* data, size_t bytes)>& use) const;

  /// Whether a provider brings files when they are read, so that it is best to
  /// read them one after the other.
  bool is_streamed() const;
  /// The bytes of all files that were brought, each as often as it was.
  int64_t fetched_bytes() const;
  /// Says that a file, by its name in the folder, is not read any more for now.
  void release(const std::string& file) const;

  /// The stamp that the file of a tensor had when it was opened.
  const FileStamp& stamp(const std::string& name) const;
  /// Throws an io Error that names a file which has been written to since it
  /// was opened: what was read of it may be of either state.
  void require_unchanged() const;

 private:
  struct Impl;
  static Checkpoint open_folder(
      const fs::path& folder,
      std::shared_ptr<ShardProvider> provider);
  const PackedTensor* find_packed(const std::string& name) const;
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Throws a numeric Error with `name` and the numbers of NaN and infinite
/// values if a floating tensor holds any. It must be evaluated and
/// row-contiguous.
void require_finite(const mx::array& tensor, const std::string& name);

}  // namespace pennyweight
