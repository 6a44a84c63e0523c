#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace pennyweight {

/// Tensors of at most so many bytes are in the folder's files even where the
/// rest of these is not, since norms and biases are asked for again and again.
inline constexpr uint64_t kAlwaysThere = uint64_t{64} << 10;

/// Brings the files of a checkpoint one by one, and takes them away, where a
/// disk does not hold them all. The folder then has each file by its name and
/// in its length, with header and small tensors in place and holes elsewhere.
/// Of the whole files a reader holds kHeldFiles at a time at most.
class ShardProvider {
 public:
  virtual ~ShardProvider() = default;
  /// Waits until a file is whole, and says where. Errors as the hub's.
  virtual std::filesystem::path fetch(const std::string& file) = 0;
  /// It is not read any more for now: its disk may be taken.
  virtual void release(const std::string& file) = 0;
};

/// Two, since a block may begin in one file and end in the next.
inline constexpr size_t kHeldFiles = 2;

}  // namespace pennyweight
