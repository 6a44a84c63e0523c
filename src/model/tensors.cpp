#include "model/tensors.h"

#include <mlx/ops.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "ops/ops.h"

namespace pennyweight {

namespace {

mx::array multiplied(const mx::array& tensor, const TensorSource& source) {
  auto factor = mx::array(source.times, tensor.dtype());
  if (!source.row_times.empty()) {
    std::vector<float> rows;
    for (const auto& [count, own] : source.row_times) {
      rows.insert(rows.end(), size_t(count), own);
    }
    const mx::array by_row(rows.begin(), {int(rows.size()), 1}, mx::float32);
    factor = mx::multiply(factor, mx::astype(by_row, tensor.dtype()));
  }
  return mx::multiply(tensor, factor);
}

// One of the source's tensors in the form that the source describes.
mx::array formed(mx::array tensor, const TensorSource& source) {
  if (source.squeezed) {
    return mx::squeeze(tensor);
  }
  if (source.times != 1 || !source.row_times.empty()) {
    return multiplied(tensor, source);
  }
  if (source.add != 0) {
    return mx::add(tensor, mx::array(source.add, tensor.dtype()));
  }
  if (source.width_first) {
    return mx::swapaxes(tensor, 1, 2);
  }
  if (source.words) {
    tensor = mx::flatten(mx::view(tensor, mx::uint32), -2, -1);
  }
  if (source.split > 0) {
    tensor = mx::unflatten(tensor, 0, {source.split, -1});
  }
  const size_t axis = source.axis(tensor.ndim());
  auto start = mx::Shape(tensor.ndim(), 0);
  auto stop = tensor.shape();
  auto strides = mx::Shape(tensor.ndim(), 1);
  start[axis] = source.first;
  stop[axis] = source.end > 0 ? source.end : stop[axis];
  strides[axis] = source.step;
  if (start[axis] > 0 || stop[axis] < tensor.shape(int(axis)) ||
      source.step > 1) {
    tensor = mx::slice(tensor, start, stop, strides);
  }
  if (source.transposed) {
    tensor = mx::swapaxes(tensor, -1, -2);
  }
  return tensor;
}

// The shape of the result of formed() for a tensor of `shape`, or of the stack
// of all; empty where the source does not fit the shape.
mx::Shape formed(mx::Shape shape, const TensorSource& source) {
  if (source.squeezed) {
    return shape.size() == 1 && shape[0] == 1 ? mx::Shape{} : shape;
  }
  if (!source.row_times.empty()) {
    int64_t rows = 0;
    for (const auto& [count, own] : source.row_times) {
      rows += count;
    }
    return shape.size() == 2 && shape[0] == rows ? shape : mx::Shape{};
  }
  if (source.add != 0) {
    return shape;
  }
  if (source.width_first) {
    if (shape.size() != 3) {
      return {};
    }
    std::swap(shape[1], shape[2]);
    return shape;
  }
  if (source.words) {
    if (shape.size() < 2 || shape.back() % 4 != 0) {
      return {};
    }
    const int words = shape.back() / 4;
    shape.pop_back();
    shape.back() *= words;
  }
  if (source.split > 0) {
    if (shape.empty() || shape[0] % source.split != 0) {
      return {};
    }
    shape[0] /= source.split;
    shape.insert(shape.begin(), source.split);
  }
  const size_t axis = source.axis(shape.size());
  if (axis >= shape.size() || shape[axis] < source.end ||
      shape[axis] <= source.first) {
    return {};
  }
  const int end = source.end > 0 ? source.end : shape[axis];
  shape[axis] = (end - source.first + source.step - 1) / source.step;
  if (source.transposed && shape.size() > 1) {
    std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  }
  if (source.count > 0) {
    shape.insert(shape.begin(), static_cast<int>(source.count));
  }
  return shape;
}

}  // namespace

ModelTensors::ModelTensors(
    const Checkpoint& checkpoint,
    std::map<std::string, TensorSource> sources)
    : infos_(checkpoint.tensors()) {
  const auto corrupt = [&](const std::string& what) {
    throw corrupt_error("model", checkpoint.folder().string() + ": " + what);
  };
  std::set<std::string> used;
  for (auto& [name, source] : sources) {
    const bool in_place = source.name == name;
    if ((checkpoint.contains(name) && !in_place) ||
        !checkpoint.contains(source.part(0))) {
      continue;
    }
    const auto& first = checkpoint.info(source.part(0));
    auto dtype = first.dtype;
    for (int64_t i = 0; i < std::max<int64_t>(1, source.count); ++i) {
      const auto part = source.part(i);
      if (!checkpoint.contains(part)) {
        corrupt(
            "tensor " + part + " is missing" + checkpoint.about_missing(part));
      }
      const auto& other = checkpoint.info(part);
      const bool floats = mx::issubdtype(other.dtype, mx::floating) &&
          mx::issubdtype(dtype, mx::floating);
      if (other.shape != first.shape || (other.dtype != dtype && !floats)) {
        corrupt(
            "tensor " + part + " is not of the shape and type of " +
            first.name + ", beside which it stands");
      }
      dtype = mx::promote_types(dtype, other.dtype);  // as mx.stack does
      if (!in_place) {
        used.insert(part);
      }
    }
    TensorInfo info = first;
    info.name = name;
    info.dtype = dtype;
    info.shape = formed(first.shape, source);
    if (source.words) {
      info.dtype = mx::uint32;
    }
    if (info.shape.empty() && !source.squeezed) {
      corrupt("tensor " + first.name + " has a shape that makes no " + name);
    }
    info.bytes = mx::size_of(info.dtype);
    for (int extent : info.shape) {
      info.bytes *= static_cast<uint64_t>(extent);
    }
    infos_.insert_or_assign(name, std::move(info));
    sources_.emplace(name, std::move(source));
  }
  for (const auto& name : used) {
    infos_.erase(name);
  }
}

std::set<std::string> ModelTensors::stored(const Checkpoint& checkpoint) const {
  std::set<std::string> names;
  for (const auto& [name, info] : infos_) {
    const auto own = stored(checkpoint, name);
    names.insert(own.begin(), own.end());
  }
  return names;
}

std::vector<std::string> ModelTensors::stored(
    const Checkpoint& checkpoint,
    const std::string& name) const {
  const auto it = sources_.find(name);
  if (it == sources_.end()) {
    return checkpoint.stored_parts(name);
  }
  std::vector<std::string> names;
  for (int64_t i = 0; i < std::max<int64_t>(1, it->second.count); ++i) {
    const auto parts = checkpoint.stored_parts(it->second.part(i));
    names.insert(names.end(), parts.begin(), parts.end());
  }
  return names;
}

uint64_t ModelTensors::stored_bytes(
    const Checkpoint& checkpoint,
    const std::string& name) const {
  const auto& all = info(name);
  if (!checkpoint.packed()) {
    return all.bytes;
  }
  const auto it = sources_.find(name);
  const int64_t count =
      it == sources_.end() ? 1 : std::max<int64_t>(1, it->second.count);
  uint64_t stored = 0;
  uint64_t expanded = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto part = it == sources_.end() ? name : it->second.part(i);
    expanded += checkpoint.info(part).bytes;
    for (const auto& file_name : checkpoint.stored_parts(part)) {
      stored += checkpoint.stored_info(file_name).bytes;
    }
  }
  // Two modules may share a tensor of the file.
  return expanded == 0
      ? 0
      : static_cast<uint64_t>(
            double(stored) * double(all.bytes) / double(expanded));
}

const TensorInfo& ModelTensors::info(const std::string& name) const {
  auto it = infos_.find(name);
  if (it == infos_.end()) {
    throw not_found_error("model", "there is no tensor " + name);
  }
  return it->second;
}

mx::array ModelTensors::load(
    const Checkpoint& checkpoint,
    const std::string& name) const {
  auto it = sources_.find(name);
  if (it == sources_.end()) {
    return checkpoint.load(name);
  }
  if (it->second.renames()) {
    return checkpoint.load(it->second.name);
  }
  std::vector<mx::array> parts;
  for (int64_t i = 0; i < std::max<int64_t>(1, it->second.count); ++i) {
    parts.push_back(formed(checkpoint.load(it->second.part(i)), it->second));
  }
  return mx::contiguous(
      it->second.count == 0 ? parts.front() : mx::stack(parts));  // promotes
}

std::optional<mx::array> ModelTensors::load_alone(
    const Checkpoint& checkpoint,
    const std::string& name,
    int64_t part) const {
  const auto it = sources_.find(name);
  auto source = it == sources_.end() ? TensorSource{.name = name} : it->second;
  const auto& stored = checkpoint.info(source.name);
  if (stored.shape.size() < 2 || source.width_first) {
    return std::nullopt;
  }
  const int rows = source.split > 0 ? stored.shape[0] / source.split : 1;
  source.split = source.split > 0 ? 1 : 0;
  const auto entry =
      checkpoint.load_rows(source.name, static_cast<int>(part) * rows, rows);
  return mx::contiguous(mx::squeeze(formed(entry, source), 0));
}

mx::array ModelTensors::load_part(
    const Checkpoint& checkpoint,
    const std::string& name,
    int64_t part) const {
  auto it = sources_.find(name);
  if (it != sources_.end() && it->second.count > 0) {
    const auto one = formed(checkpoint.load(it->second.part(part)), it->second);
    return mx::contiguous(mx::astype(one, info(name).dtype));
  }
  if (auto alone = load_alone(checkpoint, name, part)) {
    return *alone;
  }
  auto whole = it == sources_.end()
      ? checkpoint.load(name)
      : formed(checkpoint.load(it->second.name), it->second);
  auto start = mx::Shape(whole.ndim(), 0);
  auto stop = whole.shape();
  start[0] = static_cast<int>(part);
  stop[0] = start[0] + 1;
  return mx::contiguous(mx::squeeze(mx::slice(whole, start, stop), 0));
}

mx::array ModelTensors::load_rows(
    const Checkpoint& checkpoint,
    const std::string& name,
    int first,
    int count) const {
  auto it = sources_.find(name);
  if (it == sources_.end()) {
    return checkpoint.load_rows(name, first, count);
  }
  if (it->second.keeps_rows()) {
    const auto rows = checkpoint.load_rows(it->second.name, first, count);
    return it->second.renames() ? rows : formed(rows, it->second);
  }
  const auto whole = load(checkpoint, name);
  return mx::contiguous(ops::slice_rows(whole, first, count));
}

}  // namespace pennyweight
