#include "ops/primitive.h"

#include <mlx/allocator.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/device.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "kernels/threads.h"

namespace pennyweight::ops {

namespace {

constexpr size_t kCacheLine = 64;

/// The stride between rows, where x is rows of a dense last axis at even
/// distances.
std::optional<int64_t> even_stride(const mx::array& x) {
  const int last = int(x.ndim()) - 1;
  if (last < 0) {
    return 1;
  }
  if (x.shape(last) > 1 && x.strides(last) != 1) {
    return std::nullopt;
  }
  std::optional<int64_t> stride;
  int64_t expected = 0;
  for (int axis = last - 1; axis >= 0; --axis) {
    if (x.shape(axis) == 1) {
      continue;
    }
    if (!stride) {
      stride = expected = x.strides(axis);
    }
    if (x.strides(axis) != expected) {
      return std::nullopt;
    }
    expected *= x.shape(axis);
  }
  return stride.value_or(x.shape(last));
}

/// What a copy needs to know of x once x itself may be gone.
struct Source {
  const char* data;
  size_t item;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

void copy_row(const Source& from, int64_t row, char* to) {
  int64_t index = row;
  int64_t offset = 0;
  const size_t last = from.shape.size() - 1;
  for (size_t axis = last; axis-- > 0;) {
    offset += index % from.shape[axis] * from.strides[axis];
    index /= from.shape[axis];
  }
  const char* p = from.data + offset * int64_t(from.item);
  const int64_t n = from.shape[last];
  if (from.strides[last] == 1) {
    std::memcpy(to, p, size_t(n) * from.item);
    return;
  }
  const int64_t step = from.strides[last] * int64_t(from.item);
  for (int64_t j = 0; j < n; ++j, p += step, to += from.item) {
    std::memcpy(to, p, from.item);
  }
}

}  // namespace

void CpuPrimitive::eval_cpu(
    const std::vector<mx::array>& inputs,
    mx::array& out) {
  auto task = plan(inputs, out);
  if (out.size() > 0) {
    mx::cpu::get_command_encoder(stream()).dispatch(std::move(task));
  }
}

void CpuPrimitive::eval_gpu(const std::vector<mx::array>&, mx::array&) {
  throw Error(
      ErrorCode::not_supported,
      name(),
      "this op was made for the CPU; make it under the GPU as default device");
}

std::vector<mx::array> CpuPrimitive::vjp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&,
    const std::vector<mx::array>&) {
  throw Error(ErrorCode::not_supported, name(), "this op has no gradient");
}

std::vector<mx::array> vjp_through(
    const std::function<mx::array(const std::vector<mx::array>&)>& function,
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& cotangents,
    const std::vector<int>& argnums) {
  std::vector<mx::array> wanted;
  for (int arg : argnums) {
    wanted.push_back(primals[size_t(arg)]);
  }
  const auto of_wanted = [&](const std::vector<mx::array>& values) {
    auto all = primals;
    for (size_t i = 0; i < argnums.size(); ++i) {
      all[size_t(argnums[i])] = values[i];
    }
    return std::vector<mx::array>{function(all)};
  };
  return mx::vjp(of_wanted, wanted, cotangents).second;
}

void CpuPrimitive::Continued::copy() const {
  if (from != to) {
    std::memcpy(to, from, bytes);
  }
}

CpuPrimitive::Continued CpuPrimitive::go_on(
    const mx::array& sum,
    mx::array& out) {
  if (sum.is_donatable() && sum.flags().row_contiguous) {
    out.copy_shared_buffer(sum);
    return {out.data<void>(), out.data<void>(), 0};
  }
  const auto dense = without_gaps(sum);
  allocate(out);
  return {dense.data<void>(), out.data<void>(), out.nbytes()};
}

mx::array CpuPrimitive::copied(const mx::array& x) {
  mx::array copy(x.shape(), x.dtype(), nullptr, {});
  allocate(copy);
  Source from{x.data<char>(), x.itemsize(), {}, {}};
  from.shape.assign(x.shape().begin(), x.shape().end());
  from.strides.assign(x.strides().begin(), x.strides().end());
  char* to = copy.data<char>();
  const int64_t rows = row_count(x);
  const int64_t row_bytes = column_count(x) * int64_t(x.itemsize());
  auto& encoder = mx::cpu::get_command_encoder(stream());
  encoder.dispatch([from = std::move(from), to, rows, row_bytes] {
    kernels::parallel_ranges(
        rows,
        1 + (1 << 16) / std::max<int64_t>(1, row_bytes),
        [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            copy_row(from, row, to + row * row_bytes);
          }
        });
  });
  encoder.add_temporary(copy);
  return copy;
}

mx::array CpuPrimitive::with_even_rows(const mx::array& x) {
  return x.size() == 0 || even_stride(x) ? x : copied(x);
}

mx::array CpuPrimitive::without_gaps(const mx::array& x) {
  return x.size() == 0 || x.flags().row_contiguous ? x : copied(x);
}

mx::array CpuPrimitive::with_dense_last_axis(const mx::array& x) {
  return x.size() == 0 || x.shape(-1) == 1 || x.strides(-1) == 1 ? x
                                                                 : copied(x);
}

std::optional<mx::Stream> cpu_stream() {
  const auto device = mx::default_device();
  if (device.type != mx::Device::DeviceType::cpu) {
    return std::nullopt;
  }
  return mx::default_stream(device);
}

void allocate(mx::array& out) {
  auto data = mx::allocator::malloc(out.nbytes() + kCacheLine);
  const auto address =
      reinterpret_cast<uintptr_t>(data.buffer().raw_ptr()) % kCacheLine;
  const size_t offset = address == 0 ? 0 : kCacheLine - address;
  mx::array::Flags flags;
  flags.contiguous = true;
  flags.row_contiguous = true;
  const auto& shape = out.shape();
  const auto longest = std::max_element(shape.begin(), shape.end());
  flags.col_contiguous =
      out.size() <= 1 || out.size() == static_cast<size_t>(*longest);
  out.set_data(
      std::move(data), out.size(), out.strides(), flags, int64_t(offset));
}

kernels::DType kernel_type(mx::Dtype dtype) {
  return dtype == mx::bfloat16 ? kernels::DType::bf16
      : dtype == mx::float16   ? kernels::DType::f16
                               : kernels::DType::f32;
}

int64_t column_count(const mx::array& x) {
  return x.ndim() == 0 ? 1 : x.shape(-1);
}

int64_t row_count(const mx::array& x) {
  return int64_t(x.size()) / std::max<int64_t>(1, column_count(x));
}

kernels::ConstMatrix matrix_of(const mx::array& x) {
  return {
      x.data<void>(),
      kernel_type(x.dtype()),
      even_stride(x).value_or(column_count(x))};
}

kernels::Matrix matrix_of(mx::array& out) {
  return {out.data<void>(), kernel_type(out.dtype()), column_count(out)};
}

kernels::ConstVector vector_of(const mx::array& x) {
  return {x.data<void>(), kernel_type(x.dtype())};
}

kernels::HeadsView heads_view(const mx::array& x) {
  return {x.data<void>(), x.strides(0), x.strides(1), x.strides(2)};
}

}  // namespace pennyweight::ops
