#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/tensor_info.h"
#include "core/files/atomic_file.h"

namespace pennyweight {

namespace mx = mlx::core;

/// What a header says of a tensor, whose data need not exist yet.
struct TensorPlan {
  std::string name;
  mx::Dtype dtype;
  mx::Shape shape;
  ByteType byte_type = ByteType::plain;
};

/// The bytes of the tensor's data in a file.
uint64_t plan_bytes(const TensorPlan& tensor);

/// The header of a file that holds the tensors begin .. end - 1 of `plan` one
/// after the other: the 8-byte length and the JSON.
std::string safetensors_header(
    const std::vector<TensorPlan>& plan,
    size_t begin,
    size_t end,
    const std::map<std::string, std::string>& metadata = {{"format", "mlx"}});

/// Writes one safetensors file of these tensors, whole or not at all. Errors
/// are those of AtomicFile.
void write_safetensors(
    const fs::path& file,
    const std::map<std::string, mx::array>& tensors);
void write_safetensors(
    const DirHandle& folder,
    const std::string& name,
    const std::map<std::string, mx::array>& tensors);

}  // namespace pennyweight
