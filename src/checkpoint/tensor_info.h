#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace pennyweight {

namespace mx = mlx::core;

/// How a byte of a tensor is to be read where MLX has no such type and takes it
/// as uint8.
enum class ByteType {
  plain,  // as the dtype says
  e4m3,   // F8_E4M3: a sign, four bits of exponent, three of fraction
  e8m0,   // F8_E8M0: two to the power of the byte less 127
};

/// What a checked safetensors header says of a tensor: the dtype is one that
/// MLX has (F32, F16, BF16; I8..I64, U8..U64, BOOL), shape times item size
/// equals `bytes`, and these lie in the file and overlap no other tensor's.
struct TensorInfo {
  std::string name;
  mx::Dtype dtype;
  mx::Shape shape;
  uint64_t bytes;
  std::filesystem::path file;
  ByteType byte_type = ByteType::plain;
};

}  // namespace pennyweight
