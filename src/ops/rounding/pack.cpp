#include "ops/rounding/pack.h"

#include <bit>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/threads.h"
#include "ops/rounding/cpu_function.h"

namespace pennyweight {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kGrain = 1 << 13;  // runs of eight codes a thread

void check_bits(int bits) {
  if (bits < 1 || bits > 8) {
    throw argument_error(
        "pack", "codes of " + std::to_string(bits) + " bits can't be packed");
  }
}

void check_array(const mx::array& array, mx::Dtype dtype) {
  if (array.ndim() < 1 || array.dtype() != dtype) {
    throw argument_error(
        "pack",
        "codes are uint8 and packed codes uint32, of at least one dimension");
  }
}

mx::Shape with_last(mx::Shape shape, int64_t last) {
  shape.back() = static_cast<int>(last);
  return shape;
}

}  // namespace

void pack_codes(const uint8_t* codes, int64_t count, int bits, uint8_t* out) {
  check_bits(bits);
  kernels::parallel_ranges(count / 8, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint64_t word = 0;
      for (int k = 0; k < 8; ++k) {
        word |= uint64_t{codes[i * 8 + k]} << (k * bits);
      }
      std::memcpy(out + i * bits, &word, static_cast<size_t>(bits));
    }
  });
}

void unpack_codes(
    const uint8_t* packed,
    int64_t count,
    int bits,
    uint8_t* out) {
  check_bits(bits);
  uint64_t mask = (1u << bits) - 1;
  kernels::parallel_ranges(count / 8, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, packed + i * bits, static_cast<size_t>(bits));
      for (int k = 0; k < 8; ++k) {
        out[i * 8 + k] = static_cast<uint8_t>(word >> (k * bits) & mask);
      }
    }
  });
}

mx::array pack_codes(const mx::array& codes, int bits) {
  check_bits(bits);
  check_array(codes, mx::uint8);
  if (int64_t{codes.shape(-1)} * bits % 32 != 0) {
    throw argument_error(
        "pack",
        std::to_string(codes.shape(-1)) + " codes of " + std::to_string(bits) +
            " bits don't fill whole words");
  }
  auto shape = with_last(codes.shape(), int64_t{codes.shape(-1)} * bits / 32);
  auto body =
      [bits](const std::vector<mx::array>& in, std::vector<mx::array>& out) {
        pack_codes(
            in[0].data<uint8_t>(),
            static_cast<int64_t>(in[0].size()),
            bits,
            reinterpret_cast<uint8_t*>(out[0].data<uint32_t>()));
      };
  return cpu_arrays("PackCodes", {codes}, {shape}, {mx::uint32}, body)[0];
}

}  // namespace pennyweight
