#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pennyweight {

/// `wanted` (at most `count`) distinct indices below `count` in random order,
/// the same for a seed on every machine: the first steps of a Fisher-Yates
/// shuffle with SplitMix64 (Steele, Lea, Flood 2014) and Lemire's unbiased
/// bounded draw (arXiv 1805.10941).
std::vector<size_t> choose(size_t count, size_t wanted, uint64_t seed);

}  // namespace pennyweight
