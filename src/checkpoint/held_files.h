#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "checkpoint/safetensors.h"
#include "checkpoint/shard_provider.h"

namespace pennyweight {

/// The files of a streamed checkpoint that are on the disk as a whole just now:
/// kHeldFiles at most.
class HeldFiles {
 public:
  explicit HeldFiles(std::shared_ptr<ShardProvider> provider)
      : provider_(std::move(provider)) {}

  /// The file that has an entry of `stub`: the stub itself where the entry is
  /// small, or the whole file. That is fetched where it is not held, and takes
  /// the place of the least recently used one. corrupt Error for a file whose
  /// header is not its stub's. May be called from any thread.
  std::shared_ptr<SafetensorsFile> at(
      const std::shared_ptr<SafetensorsFile>& stub,
      const SafetensorsEntry& entry);
  /// The bytes of all fetched files, each as often as it was fetched.
  int64_t fetched_bytes() const {
    return fetched_bytes_;
  }
  /// See ShardProvider.
  void release(const std::string& file);

 private:
  struct Held {
    std::string name;
    std::shared_ptr<SafetensorsFile> file;
  };

  std::shared_ptr<ShardProvider> provider_;
  std::mutex mutex_;
  std::atomic<int64_t> fetched_bytes_ = 0;
  std::list<Held> held_;  // the most recently used one is last
};

}  // namespace pennyweight
