#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/safetensors_writer.h"
#include "core/files/atomic_file.h"
#include "core/json_fwd.h"

namespace pennyweight {

namespace mx = mlx::core;

/// mlx-lm's limit for a shard, 5 GiB.
inline constexpr uint64_t kMaxShardBytes = uint64_t{5} << 30;

/// Writes a model folder as mlx-lm lays it out: `model.safetensors`, or
/// `model-00001-of-0000N.safetensors` where it passes the shard limit, with
/// metadata {"format": "mlx"}, and `model.safetensors.index.json`. All shapes
/// are known beforehand, so that each tensor goes to disk as it comes, in any
/// order, and none is kept.
class ModelWriter {
 public:
  ModelWriter(
      fs::path folder,
      std::vector<TensorPlan> plan,
      uint64_t max_shard_bytes = kMaxShardBytes);
  ~ModelWriter();

  /// A tensor of the plan, once: name, dtype and shape must be as planned, the
  /// value evaluated and row-contiguous (invalid_argument).
  void write(const std::string& name, const mx::array& value);
  /// The same some rows at a time: what follows begin() is append()ed until the
  /// tensor is whole.
  void begin(const std::string& name);
  void append(const mx::array& rows);

  /// Writes the index. `parameters` is the count of
  /// weights as if not quantized.
  void finish(int64_t parameters);

  uint64_t total_bytes() const {
    return total_bytes_;
  }

 private:
  /// One that some of its tensors are in.
  struct Shard {
    std::unique_ptr<AtomicFile> file;
    size_t missing = 0;  // tensors
  };

  size_t first_of(size_t shard) const {
    return shard == 0 ? 0 : shard_ends_[shard - 1];
  }
  Shard& open_shard(size_t shard);

  fs::path folder_;
  std::vector<TensorPlan> plan_;
  std::map<std::string, size_t> places_;  // in the plan
  std::vector<size_t> shard_ends_;  // one past the last tensor of each shard
  std::vector<size_t> shard_of_;
  std::vector<uint64_t> offsets_;  // of a tensor behind its shard's header
  std::vector<uint64_t> headers_;  // bytes, of the shards that were begun
  uint64_t total_bytes_ = 0;
  std::vector<bool> written_;
  size_t current_ = 0;               // what was begun
  std::optional<uint64_t> missing_;  // bytes of that
  std::map<size_t, Shard> open_;
};

/// config.json of the output: `config` with `quantization` (null: none, and
/// what was there is removed, another quantizer's and text_config's, too) under
/// both of mlx-lm's keys.
Json output_config(const Json& config, const Json& quantization);

}  // namespace pennyweight
