#include "pipeline/fingerprint.h"

#include <algorithm>
#include <utility>

#include "checkpoint/safetensors.h"
#include "core/hash.h"

namespace pennyweight {

namespace {

constexpr size_t kSampledBytes = 256;

/// Rows that hold the first `sampled` bytes of a tensor, and the last. Not the
/// whole, which is copied where it is not aligned.
std::pair<mx::array, mx::array>
ends(const Checkpoint& checkpoint, const TensorInfo& info, size_t sampled) {
  if (info.shape.empty() || info.bytes == 0) {
    const auto whole = checkpoint.load(info.name);
    return {whole, whole};
  }
  const auto rows = static_cast<size_t>(info.shape[0]);
  const size_t row = info.bytes / rows;
  const size_t wanted = (sampled + row - 1) / row;
  const int count = static_cast<int>(wanted);
  return {
      checkpoint.load_rows(info.name, 0, count),
      checkpoint.load_rows(info.name, static_cast<int>(rows - wanted), count)};
}

}  // namespace

std::string fingerprint(const Model& model) {
  Hash hash;
  hash.add(model.checkpoint.config().dump());
  for (const auto& [name, info] : model.checkpoint.tensors()) {
    hash.add(name);
    hash.add(safetensors_dtype_name(info.dtype));
    hash.add(info.shape.data(), info.shape.size() * sizeof(info.shape[0]));
    const size_t sampled = std::min<size_t>(kSampledBytes, info.bytes);
    const auto [first, last] = ends(model.checkpoint, info, sampled);
    hash.add(first.data<char>(), sampled);
    hash.add(last.data<char>() + last.nbytes() - sampled, sampled);
  }
  return hash.text();
}

std::string fingerprint(const std::vector<std::vector<int32_t>>& sequences) {
  Hash hash;
  for (const auto& sequence : sequences) {
    const size_t size = sequence.size();
    hash.add(&size, sizeof(size));
    hash.add(sequence.data(), size * sizeof(sequence[0]));
  }
  return hash.text();
}

}  // namespace pennyweight
