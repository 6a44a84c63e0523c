#include "text/choose.h"

#include <algorithm>
#include <unordered_map>

namespace pennyweight {

namespace {

class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  /// Uniform below `bound`, which fits in 32 bits.
  uint64_t below(uint64_t bound) {
    uint64_t product = (next() >> 32) * bound;
    uint64_t threshold = ((uint64_t{1} << 32) - bound) % bound;
    while ((product & 0xFFFFFFFFu) < threshold) {
      product = (next() >> 32) * bound;
    }
    return product >> 32;
  }

 private:
  uint64_t state_;
};

}  // namespace

std::vector<size_t> choose(size_t count, size_t wanted, uint64_t seed) {
  wanted = std::min(wanted, count);
  // Of the list 0, 1, ... only what was swapped is held.
  std::unordered_map<size_t, size_t> swapped;
  const auto at = [&](size_t index) {
    const auto it = swapped.find(index);
    return it == swapped.end() ? index : it->second;
  };
  SplitMix64 random(seed);
  std::vector<size_t> chosen;
  chosen.reserve(wanted);
  for (size_t i = 0; i < wanted; ++i) {
    const size_t other = i + random.below(count - i);
    const size_t value = at(i);
    chosen.push_back(at(other));
    swapped[other] = value;
  }
  return chosen;
}

}  // namespace pennyweight
