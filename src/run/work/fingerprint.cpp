#include "run/work/fingerprint.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "checkpoint/packed/packed_source.h"
#include "checkpoint/safetensors.h"
#include "core/hash.h"
#include "core/json_text.h"
#include "kernels/threads.h"

namespace pennyweight {

namespace {

// Large enough for a disk's stride, small enough for all threads to have some.
constexpr uint64_t kHashedPiece = uint64_t{16} << 20;

struct Piece {
  std::string name;  // of a tensor
  uint64_t begin;
  uint64_t end;
};

// What of a model is no weight.
void add_description(const Model& model, Hash& hash) {
  hash.add(to_text(model.checkpoint.config()));
  if (const auto* packed = model.checkpoint.packed()) {
    hash.add(to_text(packed->settings()));
  }
  for (const auto& name : model.tensors.stored(model.checkpoint)) {
    const auto& info = model.checkpoint.stored_info(name);
    hash.add(name);
    hash.add(safetensors_dtype_name(info.dtype));
    const uint64_t dimensions = info.shape.size();
    hash.add(&dimensions, sizeof(dimensions));
    hash.add(info.shape.data(), info.shape.size() * sizeof(info.shape[0]));
  }
}

// Which files the weights are read from, and when they were written.
std::string key_of(const Model& model) {
  Hash hash;
  add_description(model, hash);
  for (const auto& name : model.tensors.stored(model.checkpoint)) {
    const auto& stamp = model.checkpoint.stamp(name);
    for (const uint64_t part :
         {stamp.device,
          stamp.number,
          static_cast<uint64_t>(stamp.bytes),
          static_cast<uint64_t>(stamp.written)}) {
      hash.add(&part, sizeof(part));
    }
  }
  return hash.text();
}

std::string read_all(const Model& model) {
  std::vector<Piece> pieces;
  for (const auto& name : model.tensors.stored(model.checkpoint)) {
    const uint64_t bytes = model.checkpoint.stored_info(name).bytes;
    for (uint64_t at = 0; at < bytes; at += kHashedPiece) {
      pieces.push_back({name, at, std::min(bytes, at + kHashedPiece)});
    }
  }
  std::vector<std::string> sums(pieces.size());
  kernels::parallel_tasks(
      static_cast<int64_t>(pieces.size()), [&](int64_t task) {
        const auto at = static_cast<size_t>(task);
        const Piece& piece = pieces[at];
        model.checkpoint.read(
            piece.name,
            piece.begin,
            piece.end,
            [&](const char* data, size_t bytes) {
              Hash hash;
              hash.add(data, bytes);
              sums[at] = hash.text();
            });
      });
  model.checkpoint.require_unchanged();
  Hash hash;
  add_description(model, hash);
  for (const auto& sum : sums) {
    hash.add(sum);
  }
  return hash.text();
}

}  // namespace

std::string fingerprint(const Model& model) {
  static std::mutex mutex;
  static std::map<std::string, std::string> known;
  const std::scoped_lock lock(mutex);
  model.checkpoint.require_unchanged();
  const auto key = key_of(model);
  auto it = known.find(key);
  if (it == known.end()) {
    it = known.emplace(key, read_all(model)).first;
  }
  return it->second;
}

ModelIdentity identify(const Model& model) {
  std::error_code ignored;
  const auto& folder = model.checkpoint.folder();
  return {fs::weakly_canonical(folder, ignored).string(), fingerprint(model)};
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
