#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace pennyweight {

namespace mx = mlx::core;

/// What a byte of a tensor is. MLX has no such types, and reads them as uint8.
enum class ByteType {
  plain,  // what the dtype says
  e4m3,   // F8_E4M3: a sign, four bits of exponent, three of fraction
  e8m0,   // F8_E8M0: two to the power of the byte less 127
};

/// What a safetensors header says of a tensor, already checked: the dtype is
/// one MLX has (F32, F16, BF16; I8..I64, U8..U64, BOOL), shape
/// times item size equals the extent, which lies in the file and overlaps no
/// other.
struct TensorInfo {
  std::string name;
  mx::Dtype dtype;
  mx::Shape shape;
  uint64_t bytes;
  std::filesystem::path file;
  ByteType byte_type = ByteType::plain;
};

}  // namespace pennyweight
