#include "ops/cpu_path.h"
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

 private:
  int dims_;
  bool traditional_;
  float input_scale_;
  int offset_;
};

class Swiglu : public CpuPrimitive {
 public:
  Swiglu(mx::Stream stream, bool gelu) : CpuPrimitive(stream), gelu_(gelu) {}

  const char* name() const override {
    return "pennyweight::Swiglu";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto gate = with_even_rows(inputs[0]);
    const auto up = with_even_rows(inputs[1]);
    reuse_or_allocate(inputs, out);
    const kernels::SwigluArgs args{
        row_count(gate),
        column_count(gate),
        matrix_of(gate),
        matrix_of(up),
        matrix_of(out),
        gelu_};
    return [args] { kernels::swiglu(args); };
  }

 private:
  bool gelu_;
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
};

class Attention : public CpuPrimitive {
 public:
  Attention(mx::Stream stream, const AttentionOptions& options)
      : CpuPrimitive(stream), options_(options) {}

  const char* name() const override {
    return "pennyweight::Attention";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto q = with_dense_last_axis(inputs[0]);
    const auto k = with_dense_last_axis(inputs[1]);
    const auto v = with_dense_last_axis(inputs[2]);
    std::optional<mx::array> sinks;
    if (inputs.size() > 3) {
      sinks = without_gaps(inputs[3]);
    }
    allocate(out);
    const kernels::AttentionArgs args{
        .batch = q.shape(0),
        .length = q.shape(1),
        .keys = k.shape(1),
        .heads = q.shape(2),
        .kv_heads = k.shape(2),
        .head_dim = q.shape(3),
        .scale = options_.scale,
        .causal = options_.causal,
        .window = options_.window,
        .cap = options_.cap,
        .sinks = sinks ? sinks->data<float>() : nullptr,
        .type = kernel_type(q.dtype()),
        .q = heads_view(q),
        .k = heads_view(k),
        .v = heads_view(v),
        .out = out.data<void>()};
    return [args] { kernels::attention(args); };
  }

 private:
  AttentionOptions options_;
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

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options,
    mx::Stream stream) {
  Arrays inputs{q, k, v};
  auto kept = options;
  if (options.sinks) {
    inputs.push_back(*options.sinks);
    kept.sinks.reset();
  }
  return make<Attention>(
      q.shape(), q.dtype(), stream, std::move(inputs), std::move(kept));
}

mx::array
swiglu(const mx::array& gate, const mx::array& up, mx::Stream stream) {
  return make<Swiglu>(gate.shape(), gate.dtype(), stream, {gate, up}, false);
}

mx::array geglu(const mx::array& gate, const mx::array& up, mx::Stream stream) {
  return make<Swiglu>(gate.shape(), gate.dtype(), stream, {gate, up}, true);
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
