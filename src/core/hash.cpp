#include "core/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/text.h"

namespace pennyweight {

struct Hash::State {
  XXH3_state_t xxh;
};

Hash::Hash() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->xxh);
}
Hash::~Hash() = default;
Hash::Hash(Hash&&) noexcept = default;
Hash& Hash::operator=(Hash&&) noexcept = default;

void Hash::add(const void* data, size_t bytes) {
  XXH3_128bits_update(&state_->xxh, data, bytes);
}

std::string Hash::text() const {
  const auto digest = XXH3_128bits_digest(&state_->xxh);
  return formatted(
      "%016llx%016llx",
      static_cast<unsigned long long>(digest.high64),
      static_cast<unsigned long long>(digest.low64));
}

}  // namespace pennyweight
