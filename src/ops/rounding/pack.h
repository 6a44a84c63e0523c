#pragma once

#include <mlx/array.h>

#include <cstdint>

namespace pennyweight {

namespace mx = mlx::core;

/// MLX's packed layout: a row is one little-endian stream of codes of `bits`
/// bits (2, 3, 4, 5, 6 or 8), lowest bit first, seen as uint32 words. A row's
/// bits must fill whole words.

/// codes uint8 [..., in], each below 2^bits, to uint32 [..., in * bits / 32].
/// Lazy, on the CPU. invalid_argument for another dtype or a width that does
/// not fill words.
mx::array pack_codes(const mx::array& codes, int bits);

/// The same on raw memory, and its inverse: `count` codes, a multiple of 8.
void pack_codes(const uint8_t* codes, int64_t count, int bits, uint8_t* out);
void unpack_codes(const uint8_t* packed, int64_t count, int bits, uint8_t* out);

}  // namespace pennyweight
