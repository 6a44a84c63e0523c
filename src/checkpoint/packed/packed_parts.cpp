#include "checkpoint/packed/packed_parts.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "core/error.h"

namespace pennyweight {

namespace {

mx::Shape without_ones(const mx::Shape& shape) {
  mx::Shape rest;
  for (int extent : shape) {
    if (extent != 1) {
      rest.push_back(extent);
    }
  }
  return rest;
}

}  // namespace

std::vector<std::string> PackedParts::named(const std::string& suffix) const {
  std::vector<std::string> names;
  for (const auto& [name, info] : stored_.infos) {
    if (name.size() > suffix.size() && name.ends_with(suffix) &&
        !taken_.contains(name)) {
      names.push_back(name.substr(0, name.size() - suffix.size()));
    }
  }
  return names;
}

const TensorInfo* PackedParts::find(const std::string& name) const {
  const auto it = stored_.infos.find(name);
  return it == stored_.infos.end() ? nullptr : &it->second;
}

const TensorInfo& PackedParts::require(
    const std::string& name,
    const TensorInfo& beside) const {
  if (const auto* info = find(name)) {
    return *info;
  }
  const auto file = stored_.about_missing(name);
  throw Error(
      file.empty() ? ErrorCode::corrupt : ErrorCode::not_found,
      "checkpoint",
      stored_.folder + ": quantized by \"" + entry_.method + "\", but tensor " +
          one_line(name, 120) + " is missing, which " +
          one_line(beside.name, 120) + " needs" + file);
}

const TensorInfo& PackedParts::require_scales(
    const std::string& name,
    const TensorInfo& beside) const {
  const auto& info = require(name, beside);
  if (!mx::issubdtype(info.dtype, mx::floating)) {
    wrong(info, "is not of a type for scales");
  }
  return info;
}

void PackedParts::require_matrix(const TensorInfo& codes, int64_t packed)
    const {
  constexpr int64_t kMostColumns = int64_t{1} << 30;
  const auto& shape = codes.shape;
  if (shape.size() < 2 || shape.size() > 3 ||
      std::ranges::any_of(shape, [](int extent) { return extent < 1; }) ||
      shape.back() > kMostColumns / packed) {
    wrong(
        codes,
        "has shape " + bracketed(shape) +
            ", which is no matrix and no stack of them");
  }
}

void PackedParts::require_shape(const TensorInfo& info, const mx::Shape& shape)
    const {
  if (info.shape != shape) {
    wrong(
        info,
        "has shape " + bracketed(info.shape) +
            ", and the matrix and its entry ask for " + bracketed(shape));
  }
}

void PackedParts::require_size(const TensorInfo& info, const mx::Shape& shape)
    const {
  if (without_ones(info.shape) != without_ones(shape)) {
    require_shape(info, shape);
  }
}

void PackedParts::wrong(const TensorInfo& info, const std::string& what) const {
  throw corrupt_error(
      "checkpoint",
      stored_.folder + ": quantized by \"" + entry_.method + "\", but tensor " +
          one_line(info.name, 120) + " " + what);
}

void PackedParts::unknown(const std::string& what) const {
  throw not_supported_error(
      "checkpoint",
      entry_.origin + ": quantized by \"" + entry_.method + "\" with " + what +
          ", which is not read: start from the full-precision model");
}

std::vector<int64_t> PackedParts::integers(const TensorInfo& info) const {
  if (!mx::issubdtype(info.dtype, mx::integer)) {
    wrong(info, "does not hold integers");
  }
  auto values = mx::contiguous(
      mx::flatten(mx::astype(stored_.load(info.name), mx::int64)));
  mx::eval(values);
  return {values.data<int64_t>(), values.data<int64_t>() + values.size()};
}

void PackedParts::add(std::unique_ptr<PackedTensor> tensor) {
  taken_.insert(tensor->parts().begin(), tensor->parts().end());
  const auto& info = tensor->info();
  if (find(info.name) && !taken_.contains(info.name)) {
    wrong(info, "stands beside its packed form");
  }
  tensors_[info.name] = std::move(tensor);
}

void PackedParts::drop(const std::string& name) {
  taken_.insert(name);
  ++dropped_;
}

}  // namespace pennyweight
