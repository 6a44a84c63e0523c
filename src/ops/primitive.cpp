#include "ops/primitive.h"

#include <mlx/allocator.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/device.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>
#include <mlx/utils.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "kernels/dispatch.h"
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

/// Memory for `out`, row-contiguous, from a cache line's start: MLX's own
/// allocations begin 8 bytes behind one, which costs a third of AMX's rate.
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

int64_t column_count(const mx::array& x) {
  return x.ndim() == 0 ? 1 : x.shape(-1);
}

int64_t row_count(const mx::array& x) {
  return int64_t(x.size()) / std::max<int64_t>(1, column_count(x));
}

/// Whether nobody else needs the values of x, so that they may be written over.
bool is_free(const mx::array& x) {
  return x.is_donatable() && x.flags().row_contiguous;
}

/// An Op that was made on a CPU.
class CpuPrimitive : public mx::UnaryPrimitive {
 public:
  CpuPrimitive(mx::Stream stream, Op op)
      : mx::UnaryPrimitive(stream),
        name_(op.name),
        cpu_(std::move(op.cpu)),
        vjp_(std::move(op.vjp)) {}

  const char* name() const override {
    return name_;
  }

  void eval_cpu(const Arrays& inputs, mx::array& out) override {
    CpuWork work(inputs, out, stream());
    auto task = cpu_(work);
    if (out.size() == 0) {
      return;
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    if (auto beginning = work.beginning()) {
      encoder.dispatch(std::move(beginning));
    }
    encoder.dispatch(std::move(task));
  }

  void eval_gpu(const Arrays&, mx::array&) override {
    throw not_supported_error(
        name_,
        "this op was made for the CPU; make it under the GPU as default "
        "device");
  }

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    if (!vjp_) {
      no_gradient(name_, "this op has no gradient");
    }
    const mx::StreamContext on_its_stream(stream());
    const auto gradient_of = vjp_(primals, cotangents[0]);
    Arrays gradients;
    for (const int arg : argnums) {
      gradients.push_back(gradient_of(size_t(arg)));
    }
    return gradients;
  }

 private:
  const char* name_;
  std::function<Task(CpuWork&)> cpu_;
  std::function<GradientOf(const Arrays&, const mx::array&)> vjp_;
};

}  // namespace

int64_t CpuWork::rows(size_t i) const {
  return row_count(inputs_[i]);
}

int64_t CpuWork::columns(size_t i) const {
  return column_count(inputs_[i]);
}

kernels::DType CpuWork::type(size_t i) const {
  return kernel_type(inputs_[i].dtype());
}

kernels::DType CpuWork::out_type() const {
  return kernel_type(out_.dtype());
}

mx::array CpuWork::copied(const mx::array& x) {
  mx::array copy(x.shape(), x.dtype(), nullptr, {});
  allocate(copy);
  Source from{x.data<char>(), x.itemsize(), {}, {}};
  from.shape.assign(x.shape().begin(), x.shape().end());
  from.strides.assign(x.strides().begin(), x.strides().end());
  char* to = copy.data<char>();
  const int64_t rows = row_count(x);
  const int64_t row_bytes = column_count(x) * int64_t(x.itemsize());
  auto& encoder = mx::cpu::get_command_encoder(stream_);
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

mx::array CpuWork::dense(size_t i) {
  const auto& x = inputs_[i];
  return x.size() == 0 || x.flags().row_contiguous ? x : copied(x);
}

kernels::ConstMatrix CpuWork::matrix(size_t i) {
  const auto& x = inputs_[i];
  return matrix_of(x.size() == 0 || even_stride(x) ? x : copied(x));
}

kernels::ConstVector CpuWork::vector(size_t i) {
  return {dense(i).data<void>(), type(i)};
}

kernels::HeadsView CpuWork::heads(size_t i) {
  const auto& x = inputs_[i];
  const bool fits = x.size() == 0 || x.shape(-1) == 1 || x.strides(-1) == 1;
  const auto own = fits ? x : copied(x);
  return {
      own.data<void>(),
      own.strides(0),
      own.strides(1),
      own.ndim() > 3 ? own.strides(2) : 0};
}

kernels::Matrix CpuWork::result() {
  allocate(out_);
  return {out_.data<void>(), out_type(), column_count(out_)};
}

kernels::Matrix CpuWork::result_over(std::initializer_list<size_t> inputs) {
  for (const size_t i : inputs) {
    const auto& input = inputs_[i];
    if (is_free(input) && input.dtype() == out_.dtype() &&
        input.size() == out_.size()) {
      out_.copy_shared_buffer(input);
      return {out_.data<void>(), out_type(), column_count(out_)};
    }
  }
  return result();
}

kernels::Matrix CpuWork::result_from(size_t i) {
  const auto to = result_over({i});
  const void* from = dense(i).data<void>();
  if (from != to.data) {
    beginning_ = [from, to = to.data, bytes = out_.nbytes()] {
      std::memcpy(to, from, bytes);
    };
  }
  return to;
}

kernels::Matrix CpuWork::zeros() {
  const auto to = result();
  beginning_ = [to = to.data, bytes = out_.nbytes()] {
    std::memset(to, 0, bytes);
  };
  return to;
}

mx::array make(Op op) {
  if (!uses_kernels() && op.fallback) {
    return op.fallback(op.inputs);
  }
  auto shape = std::move(op.shape);
  auto inputs = std::move(op.inputs);
  const auto dtype = op.dtype;
  auto primitive = std::make_shared<CpuPrimitive>(
      mx::default_stream(mx::default_device()), std::move(op));
  return mx::array(
      std::move(shape), dtype, std::move(primitive), std::move(inputs));
}

GradientOf gradient_through(
    const std::function<mx::array(const Arrays&)>& fallback,
    const Arrays& inputs,
    const mx::array& dy) {
  return [=](size_t i) {
    const auto of_one = [&](const Arrays& value) {
      auto all = inputs;
      all[i] = value[0];
      return Arrays{fallback(all)};
    };
    return mx::vjp(of_one, {inputs[i]}, {dy}).second[0];
  };
}

void no_gradient(const char* op, const std::string& what) {
  throw not_supported_error(op, what);
}

bool uses_kernels() {
  return mx::default_device().type == mx::Device::DeviceType::cpu &&
      kernels::active_choice() != kernels::Choice::mlx;
}

mx::array part_of(const mx::array& x, int i) {
  return mx::squeeze(slice_rows(x, i, 1), 0);
}

mx::array as_float32(const mx::array& x) {
  return mx::astype(x, mx::float32);
}

mx::Shape with_last(const mx::array& x, int last) {
  auto shape = x.shape();
  shape.back() = last;
  return shape;
}

kernels::DType kernel_type(mx::Dtype dtype) {
  return dtype == mx::bfloat16 ? kernels::DType::bf16
      : dtype == mx::float16   ? kernels::DType::f16
                               : kernels::DType::f32;
}

kernels::ConstMatrix matrix_of(const mx::array& x) {
  return {
      x.data<void>(),
      kernel_type(x.dtype()),
      even_stride(x).value_or(column_count(x))};
}

}  // namespace pennyweight::ops
