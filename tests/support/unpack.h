#pragma once

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "ops/rounding/pack.h"

namespace pennyweight::testing {

/// The codes of packed rows: uint32 [..., words] to uint8 [..., words * 32 /
/// bits].
inline mx::array unpacked(const mx::array& packed, int bits) {
  const auto words = mx::contiguous(packed);
  mx::eval(words);
  auto shape = words.shape();
  shape.back() = shape.back() * 32 / bits;
  auto codes = mx::zeros(shape, mx::uint8);
  mx::eval(codes);
  unpack_codes(
      reinterpret_cast<const uint8_t*>(words.data<uint32_t>()),
      static_cast<int64_t>(codes.size()),
      bits,
      codes.data<uint8_t>());
  return codes;
}

}  // namespace pennyweight::testing
