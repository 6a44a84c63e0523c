#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace pennyweight {

/// Tensors of at most so many bytes are always in the folder's stubs, since
/// norms and biases are read again and again.
inline constexpr uint64_t kAlwaysThere = uint64_t{64} << 10;

/// Brings the files of a checkpoint one by one, and takes them away again,
/// where a disk does not hold them all. The checkpoint's folder then has a stub
/// of each file: by its name and in its length, with header and small tensors
/// in place and holes elsewhere.
class ShardProvider {
 public:
  virtual ~ShardProvider() = default;
  /// Waits until a file is whole, and gives its path. Errors are the hub's.
  virtual std::filesystem::path fetch(const std::string& file) = 0;
  /// Says that a file is not read any more for now: it may be removed.
  virtual void release(const std::string& file) = 0;
};

/// How many whole files a reader holds at most: two, since a block may begin in
/// one file and end in the next.
inline constexpr size_t kHeldFiles = 2;

}  // namespace pennyweight
