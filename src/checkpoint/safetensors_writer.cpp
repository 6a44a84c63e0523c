#include "checkpoint/safetensors_writer.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "checkpoint/safetensors.h"
#include "core/json.h"

namespace pennyweight {

uint64_t plan_bytes(const TensorPlan& tensor) {
  uint64_t bytes = mx::size_of(tensor.dtype);
  for (auto extent : tensor.shape) {
    bytes *= static_cast<uint64_t>(extent);
  }
  return bytes;
}

// The JSON is padded with spaces so that the data behind it is aligned for
// every dtype. It is put together as text, since a Json object searches all
// names again with each one that is added.
std::string safetensors_header(
    const std::vector<TensorPlan>& plan,
    size_t begin,
    size_t end,
    const std::map<std::string, std::string>& metadata) {
  auto text = R"({"__metadata__":)" + Json(metadata).dump();
  uint64_t offset = 0;
  for (size_t i = begin; i < end; ++i) {
    Json entry;
    entry["dtype"] = safetensors_dtype_name(plan[i].dtype, plan[i].byte_type);
    entry["shape"] =
        std::vector<int>(plan[i].shape.begin(), plan[i].shape.end());
    entry["data_offsets"] = {offset, offset + plan_bytes(plan[i])};
    text += "," + Json(plan[i].name).dump() + ":" + entry.dump();
    offset += plan_bytes(plan[i]);
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  uint64_t length = text.size();
  std::string header(8, '\0');
  for (int i = 0; i < 8; ++i) {
    header[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
  }
  return header + text;
}

namespace {

void write_all(
    AtomicFile file,
    const std::map<std::string, mx::array>& tensors) {
  std::vector<TensorPlan> plan;
  std::vector<mx::array> values;
  for (const auto& [name, tensor] : tensors) {
    plan.push_back({name, tensor.dtype(), tensor.shape()});
    values.push_back(mx::contiguous(tensor));
  }
  mx::eval(values);
  file.write(safetensors_header(plan, 0, plan.size()));
  for (const auto& value : values) {
    file.write(value.data<char>(), value.nbytes());
  }
  file.commit();
}

}  // namespace

void write_safetensors(
    const fs::path& target,
    const std::map<std::string, mx::array>& tensors) {
  write_all(AtomicFile(target), tensors);
}

void write_safetensors(
    const DirHandle& folder,
    const std::string& name,
    const std::map<std::string, mx::array>& tensors) {
  write_all(AtomicFile(folder, name), tensors);
}

}  // namespace pennyweight
