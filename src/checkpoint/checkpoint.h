#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"

namespace pennyweight {

namespace mx = mlx::core;
namespace fs = std::filesystem;

/// What a safetensors header says of a tensor, already checked: the dtype is
/// one MLX has (F32, F16, BF16; I8..I64, U8..U64, BOOL), shape
/// times item size equals the extent, which lies in the file and overlaps no
/// other.
struct TensorInfo {
  std::string name;
  mx::Dtype dtype;
  mx::Shape shape;
  uint64_t bytes;
  fs::path file;
};

/// A checkpoint folder, read lazily. open() reads config.json, the weight
/// index (or the single model.safetensors) and every shard's header, and
/// checks them: what is missing, truncated, overlapping, duplicated or points
/// outside the folder is a corrupt or not_found Error that names file and
/// tensor. Nothing from the folder is ever executed.
class Checkpoint {
 public:
  static Checkpoint open(const fs::path& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  const fs::path& folder() const;
  const Json& config() const;
  /// Sorted by name.
  const std::map<std::string, TensorInfo>& tensors() const;
  bool contains(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const;  // not_found

  /// The tensor as a view of the mapped file, without a copy where alignment
  /// allows; its pages are given back when the last reference goes. The array
  /// stays valid after the Checkpoint is gone.
  mx::array load(const std::string& name) const;

 private:
  struct Impl;
  static Checkpoint open_folder(const fs::path& folder);
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// numeric Error that names `name` and the count when a floating tensor,
/// evaluated and row-contiguous, holds NaN or infinities.
void require_finite(const mx::array& tensor, const std::string& name);

}  // namespace pennyweight
