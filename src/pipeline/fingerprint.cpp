#include "pipeline/fingerprint.h"

#include <algorithm>

#include "checkpoint/safetensors.h"
#include "core/hash.h"

namespace pennyweight {

namespace {

constexpr size_t kSampledBytes = 256;

}  // namespace

std::string fingerprint(const Model& model) {
  Hash hash;
  hash.add(model.checkpoint.config().dump());
  for (const auto& [name, info] : model.checkpoint.tensors()) {
    hash.add(name);
    hash.add(safetensors_dtype_name(info.dtype));
    hash.add(info.shape.data(), info.shape.size() * sizeof(info.shape[0]));
    auto tensor = model.checkpoint.load(name);
    const size_t sampled = std::min<size_t>(kSampledBytes, info.bytes);
    hash.add(tensor.data<char>(), sampled);
    hash.add(tensor.data<char>() + info.bytes - sampled, sampled);
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
