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
/// are known beforehand, so that each tensor goes to disk as it comes and none
/// is kept.
class ModelWriter {
 public:
  ModelWriter(
      fs::path folder,
      std::vector<TensorPlan> plan,
      uint64_t max_shard_bytes = kMaxShardBytes);
  ~ModelWriter();

  /// The next tensor of the plan: name, dtype and shape must be as planned,
  /// the value evaluated and row-contiguous (invalid_argument).
  void write(const std::string& name, const mx::array& value);
  /// The same some rows at a time: what follows begin() is append()ed until the
  /// tensor is whole.
  void begin(const std::string& name);
  void append(const mx::array& rows);

  /// Closes the last shard and writes the index. `parameters` is the count of
  /// weights as if not quantized.
  void finish(int64_t parameters);

  uint64_t total_bytes() const {
    return total_bytes_;
  }

 private:
  void open_shard();

  fs::path folder_;
  std::vector<TensorPlan> plan_;
  std::vector<size_t> shard_ends_;  // one past the last tensor of each shard
  uint64_t total_bytes_ = 0;
  size_t next_ = 0;
  std::optional<uint64_t> missing_;  // bytes of what was begun
  size_t shard_ = 0;
  std::unique_ptr<AtomicFile> file_;
};

/// config.json of the output: `config` with `quantization` (null: none, and
/// what was there is removed, another quantizer's and text_config's, too) under
/// both of mlx-lm's keys.
Json output_config(const Json& config, const Json& quantization);

}  // namespace pennyweight
