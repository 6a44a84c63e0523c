#pragma once

#include <cstdint>

/// Random signs by place, the same whatever is made at once and by whom: those
/// of the 64 columns from `first` on are the bits of
///   mixed(mixed(seed ^ mixed(row)) + first),
/// the lowest one the first column's, and plus where it is set.
namespace pennyweight::kernels {

constexpr uint64_t kMixStep = 0x9e3779b97f4a7c15u;
constexpr uint64_t kMixFactors[] = {0xbf58476d1ce4e5b9u, 0x94d049bb133111ebu};

/// A mixer of 64 bits (splitmix64's).
constexpr uint64_t mixed(uint64_t x) {
  x += kMixStep;
  x = (x ^ (x >> 30)) * kMixFactors[0];
  x = (x ^ (x >> 27)) * kMixFactors[1];
  return x ^ (x >> 31);
}

}  // namespace pennyweight::kernels
