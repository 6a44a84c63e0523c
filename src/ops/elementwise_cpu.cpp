#include <mlx/ops.h>

#include "core/error.h"
#include "ops/cpu_path.h"
#include "ops/mlx_path.h"
#include "ops/primitive.h"

namespace pennyweight::ops::cpu_path {

namespace {

using Arrays = std::vector<mx::array>;

/// Gives `out` the memory of the first of `inputs` that is free for it, as
/// elementwise ops may; else memory of its own.
void reuse_or_allocate(const Arrays& inputs, mx::array& out) {
  for (const auto& input : inputs) {
    if (input.is_donatable() && input.flags().row_contiguous &&
        input.dtype() == out.dtype() && input.size() == out.size()) {
      out.copy_shared_buffer(input);
      return;
    }
  }
  allocate(out);
}

class RmsNormBackward : public CpuPrimitive {
 public:
  RmsNormBackward(mx::Stream stream, float eps)
      : CpuPrimitive(stream), eps_(eps) {}

  const char* name() const override {
    return "pennyweight::RmsNormBackward";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    const auto weight = without_gaps(inputs[1]);
    const auto dy = with_even_rows(inputs[2]);
    allocate(out);
    const kernels::RmsNormBackwardArgs args{
        row_count(x),
        column_count(x),
        eps_,
        matrix_of(x),
        vector_of(weight),
        matrix_of(dy),
        matrix_of(out)};
    return [args] { kernels::rms_norm_backward(args); };
  }

 private:
  float eps_;
};

/// [2, ...]: by gate, then by up.
class SwigluBackward : public CpuPrimitive {
 public:
  SwigluBackward(mx::Stream stream, kernels::GateKind kind)
      : CpuPrimitive(stream), kind_(kind) {}

  const char* name() const override {
    return "pennyweight::SwigluBackward";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto gate = with_even_rows(inputs[0]);
    const auto up = with_even_rows(inputs[1]);
    const auto dy = with_even_rows(inputs[2]);
    allocate(out);
    auto by_gate = matrix_of(out);
    auto by_up = by_gate;
    by_up.data = static_cast<char*>(by_up.data) + out.nbytes() / 2;
    const kernels::GatedActivationBackwardArgs args{
        row_count(gate),
        column_count(gate),
        matrix_of(gate),
        matrix_of(up),
        matrix_of(dy),
        by_gate,
        by_up,
        kind_};
    return [args] { kernels::gated_activation_backward(args); };
  }

 private:
  kernels::GateKind kind_;
};

class RmsNorm : public CpuPrimitive {
 public:
  RmsNorm(mx::Stream stream, float eps) : CpuPrimitive(stream), eps_(eps) {}

  const char* name() const override {
    return "pennyweight::RmsNorm";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    const auto weight = without_gaps(inputs[1]);
    allocate(out);
    const kernels::RmsNormArgs args{
        row_count(x),
        column_count(x),
        eps_,
        matrix_of(x),
        vector_of(weight),
        matrix_of(out)};
    return [args] { kernels::rms_norm(args); };
  }

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    Arrays gradients;
    for (int arg : argnums) {
      if (arg == 0) {
        gradients.push_back(mx::array(
            primals[0].shape(),
            primals[0].dtype(),
            std::make_shared<RmsNormBackward>(stream(), eps_),
            {primals[0], primals[1], cotangents[0]}));
        continue;
      }
      gradients.push_back(vjp_through(
          [&](const Arrays& inputs) {
            return mlx_path::rms_norm(inputs[0], inputs[1], eps_, mx::float32);
          },
          primals,
          {mx::astype(cotangents[0], mx::float32)},
          {arg})[0]);
    }
    return gradients;
  }

 private:
  float eps_;
};

class Rope : public CpuPrimitive {
 public:
  Rope(
      mx::Stream stream,
      int dims,
      bool traditional,
      float input_scale,
      int offset)
      : CpuPrimitive(stream),
        dims_(dims),
        traditional_(traditional),
        input_scale_(input_scale),
        offset_(offset) {}

  const char* name() const override {
    return "pennyweight::Rope";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_dense_last_axis(inputs[0]);
    const auto frequencies = without_gaps(inputs[1]);
    allocate(out);
    const kernels::RopeArgs args{
        .batch = x.shape(0),
        .length = x.shape(1),
        .heads = x.shape(2),
        .head_dim = x.shape(3),
        .dims = dims_,
        .traditional = traditional_,
        .input_scale = input_scale_,
        .offset = offset_,
        .frequencies = frequencies.data<float>(),
        .type = kernel_type(x.dtype()),
        .x = x.data<void>(),
        .x_batch_stride = x.strides(0),
        .x_row_stride = x.strides(1),
        .x_head_stride = x.strides(2),
        .out = out.data<void>()};
    return [args] { kernels::rope(args); };
  }

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    if (argnums.size() != 1 || argnums[0] != 0) {
      throw Error(
          ErrorCode::not_supported,
          "rope",
          "frequencies have no gradient; ask for that of x");
    }
    // Turned back by the same angles.
    return {mx::array(
        primals[0].shape(),
        primals[0].dtype(),
        std::make_shared<Rope>(
            stream(), dims_, traditional_, input_scale_, offset_),
        {mx::astype(cotangents[0], primals[0].dtype()),
         mx::negative(primals[1])})};
  }

 private:
  int dims_;
  bool traditional_;
  float input_scale_;
  int offset_;
};

class Swiglu : public CpuPrimitive {
 public:
  Swiglu(mx::Stream stream, kernels::GateKind kind)
      : CpuPrimitive(stream), kind_(kind) {}

  const char* name() const override {
    return "pennyweight::Swiglu";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto gate = with_even_rows(inputs[0]);
    const auto up = with_even_rows(inputs[1]);
    reuse_or_allocate(inputs, out);
    const kernels::GatedActivationArgs args{
        row_count(gate),
        column_count(gate),
        matrix_of(gate),
        matrix_of(up),
        matrix_of(out),
        kind_};
    return [args] { kernels::gated_activation(args); };
  }

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    auto shape = primals[0].shape();
    shape.insert(shape.begin(), 2);
    const mx::array both(
        shape,
        primals[0].dtype(),
        std::make_shared<SwigluBackward>(stream(), kind_),
        {primals[0], primals[1], cotangents[0]});
    Arrays gradients;
    for (int arg : argnums) {
      auto start = mx::Shape(shape.size(), 0);
      auto stop = shape;
      start[0] = arg;
      stop[0] = arg + 1;
      gradients.push_back(mx::squeeze(mx::slice(both, start, stop), 0));
    }
    return gradients;
  }

 private:
  kernels::GateKind kind_;
};

class Softmax : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::Softmax";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    reuse_or_allocate(inputs, out);
    const kernels::SoftmaxArgs args{
        row_count(x), column_count(x), matrix_of(x), matrix_of(out)};
    return [args] { kernels::softmax(args); };
  }

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    return vjp_through(
        [](const Arrays& inputs) { return mlx_path::softmax(inputs[0]); },
        primals,
        cotangents,
        argnums);
  }
};

class LogSumExp : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::LogSumExp";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    allocate(out);
    const kernels::LogSumExpArgs args{
        row_count(x), column_count(x), matrix_of(x), out.data<float>()};
    return [args] { kernels::logsumexp(args); };
  }

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    return vjp_through(
        [](const Arrays& inputs) { return mlx_path::logsumexp(inputs[0]); },
        primals,
        cotangents,
        argnums);
  }
};

template <class Op, class... Settings>
mx::array make(
    mx::Shape shape,
    mx::Dtype dtype,
    mx::Stream stream,
    Arrays inputs,
    const Settings&... settings) {
  return mx::array(
      std::move(shape),
      dtype,
      std::make_shared<Op>(stream, settings...),
      std::move(inputs));
}

}  // namespace

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    mx::Dtype out_dtype,
    mx::Stream stream) {
  return make<RmsNorm>(x.shape(), out_dtype, stream, {x, weight}, eps);
}

mx::array rope(
    const mx::array& x,
    const RopeTable& table,
    int offset,
    mx::Stream stream) {
  return make<Rope>(
      x.shape(),
      x.dtype(),
      stream,
      {x, table.frequencies},
      table.dims,
      table.traditional,
      table.input_scale,
      offset);
}

namespace {

mx::array gated(
    kernels::GateKind kind,
    const mx::array& gate,
    const mx::array& up,
    mx::Stream stream) {
  return make<Swiglu>(gate.shape(), gate.dtype(), stream, {gate, up}, kind);
}

}  // namespace

mx::array
swiglu(const mx::array& gate, const mx::array& up, mx::Stream stream) {
  return gated(kernels::GateKind::silu, gate, up, stream);
}

mx::array geglu(const mx::array& gate, const mx::array& up, mx::Stream stream) {
  return gated(kernels::GateKind::gelu, gate, up, stream);
}

mx::array
clipped_glu(const mx::array& gate, const mx::array& up, mx::Stream stream) {
  return gated(kernels::GateKind::clipped, gate, up, stream);
}

mx::array softmax(const mx::array& x, mx::Stream stream) {
  return make<Softmax>(x.shape(), x.dtype(), stream, {x});
}

mx::array logsumexp(const mx::array& x, mx::Stream stream) {
  auto shape = x.shape();
  shape.pop_back();
  return make<LogSumExp>(std::move(shape), mx::float32, stream, {x});
}

}  // namespace pennyweight::ops::cpu_path
