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

/// A tensor before its data is there.
struct TensorPlan {
  std::string name;
  mx::Dtype dtype;
  mx::Shape shape;
  ByteType byte_type = ByteType::plain;
};

/// What it takes up in a file.
uint64_t plan_bytes(const TensorPlan& tensor);

/// The header of a file that holds the tensors begin .. end - 1 of `plan` one
/// after the other, its length in front.
std::string safetensors_header(
    const std::vector<TensorPlan>& plan,
    size_t begin,
    size_t end);

/// One safetensors file of these tensors, whole or not at all. Errors as
/// AtomicFile's.
void write_safetensors(
    const fs::path& file,
    const std::map<std::string, mx::array>& tensors);
void write_safetensors(
    const DirHandle& folder,
    const std::string& name,
    const std::map<std::string, mx::array>& tensors);

}  // namespace pennyweight
