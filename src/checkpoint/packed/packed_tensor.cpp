#include "checkpoint/packed/packed_tensor.h"

#include <mlx/allocator.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/threads.h"

namespace pennyweight {

namespace {

// Rows that are expanded together: some formats lay rows side by side, and a
// cache line of theirs holds this many or fewer.
constexpr int64_t kRowsAtOnce = 32;

template <class T>
float read_value(const void* data, size_t at) {
  return static_cast<float>(static_cast<const T*>(data)[at]);
}

float read_e4m3(const void* data, size_t at) {
  return e4m3_values()[static_cast<const uint8_t*>(data)[at]];
}

float read_e8m0(const void* data, size_t at) {
  return from_e8m0(static_cast<const uint8_t*>(data)[at]);
}

std::array<float, 256> make_e4m3() {
  std::array<float, 256> values{};
  for (int byte = 0; byte < 256; ++byte) {
    const int exponent = byte >> 3 & 15;
    const int fraction = byte & 7;
    float value = exponent == 0
        ? std::ldexp(static_cast<float>(fraction), -9)
        : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    if ((byte & 0x7f) == 0x7f) {
      value = std::numeric_limits<float>::quiet_NaN();
    }
    values[static_cast<size_t>(byte)] = byte < 128 ? value : -value;
  }
  return values;
}

template <class T>
void round_to(const float* values, size_t count, void* out) {
  T* to = static_cast<T*>(out);
  for (size_t i = 0; i < count; ++i) {
    to[i] = static_cast<T>(values[i]);
  }
}

void round_to(mx::Dtype dtype, const float* values, size_t count, void* out) {
  if (dtype == mx::bfloat16) {
    round_to<mx::bfloat16_t>(values, count, out);
  } else if (dtype == mx::float16) {
    round_to<mx::float16_t>(values, count, out);
  } else {
    round_to<float>(values, count, out);
  }
}

uint64_t bytes_of(const mx::Shape& shape, mx::Dtype dtype) {
  uint64_t bytes = mx::size_of(dtype);
  for (int extent : shape) {
    bytes *= static_cast<uint64_t>(extent);
  }
  return bytes;
}

}  // namespace

const float* e4m3_values() {
  static const auto values = make_e4m3();
  return values.data();
}

float from_e8m0(uint8_t byte) {
  return byte == 255 ? std::numeric_limits<float>::quiet_NaN()
                     : std::ldexp(1.0f, int{byte} - 127);
}

FloatReader::FloatReader(const mx::array& stored, ByteType byte_type)
    : data_(stored.data<char>()) {
  if (byte_type == ByteType::e4m3) {
    read_ = read_e4m3;
  } else if (byte_type == ByteType::e8m0 || stored.dtype() == mx::uint8) {
    read_ = read_e8m0;
  } else if (stored.dtype() == mx::bfloat16) {
    read_ = read_value<mx::bfloat16_t>;
  } else if (stored.dtype() == mx::float16) {
    read_ = read_value<mx::float16_t>;
  } else {
    read_ = read_value<float>;
  }
}

bool FloatReader::can_read(const TensorInfo& info) {
  return mx::issubdtype(info.dtype, mx::floating) || info.dtype == mx::uint8;
}

PackedTensor::PackedTensor(
    Shape shape,
    std::vector<TensorInfo> parts,
    std::string form)
    : info_{
          std::move(shape.name),
          shape.dtype,
          shape.shape,
          bytes_of(shape.shape, shape.dtype),
          parts.front().file},
      form_(std::move(form)) {
  for (const auto& part : parts) {
    parts_.push_back(part.name);
    byte_types_.push_back(part.byte_type);
  }
}

mx::array PackedTensor::expand(const LoadStored& load, int first, int count)
    const {
  std::vector<mx::array> parts;
  for (const auto& part : parts_) {
    parts.push_back(load(part));
  }
  auto shape = info_.shape;
  shape[0] = count;
  // An entry of a stack is a matrix, and of a matrix a row.
  const int64_t in_entry = shape.size() > 2 ? shape[1] : 1;
  const int64_t begin = first * in_entry;
  const int64_t rows = count * in_entry;
  const size_t item = mx::size_of(info_.dtype);
  auto buffer =
      mx::allocator::malloc(std::max<size_t>(1, bytes_of(shape, info_.dtype)));
  char* out = static_cast<char*>(buffer.buffer().raw_ptr());
  kernels::parallel_tasks(
      (rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task) {
        const int64_t at = task * kRowsAtOnce;
        const int64_t some = std::min(kRowsAtOnce, rows - at);
        const auto size = static_cast<size_t>(some * columns());
        std::vector<float> values(size);
        expand_rows(parts, begin + at, some, values.data());
        round_to(
            info_.dtype,
            values.data(),
            size,
            out + static_cast<size_t>(at * columns()) * item);
      });
  return mx::array(std::move(buffer), std::move(shape), info_.dtype);
}

mx::Dtype expanded_type(const TensorInfo& scales) {
  return scales.dtype == mx::float16 ? mx::float16 : mx::bfloat16;
}

}  // namespace pennyweight
