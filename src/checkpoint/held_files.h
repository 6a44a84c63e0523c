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

/// The whole files of a checkpoint that are there for now.
class HeldFiles {
 public:
  explicit HeldFiles(std::shared_ptr<ShardProvider> provider)
      : provider_(std::move(provider)) {}

  /// The file that has an entry of `stub`, which is the stub itself where the
  /// entry is small; fetched where it is not there, for which the one that was
  /// asked for least lately may go. corrupt for a file that is not what its
  /// stub says. From any thread.
  std::shared_ptr<SafetensorsFile> at(
      const std::shared_ptr<SafetensorsFile>& stub,
      const SafetensorsEntry& entry);
  /// Of all files, each as often as it was fetched.
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
  std::list<Held> held_;  // the one asked for last at the end
};

}  // namespace pennyweight
