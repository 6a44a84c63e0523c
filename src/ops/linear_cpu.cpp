#include <cstring>
#include <utility>

#include "kernels/threads.h"
#include "ops/cpu_path.h"
#include "ops/packed_view.h"
#include "ops/primitive.h"

namespace pennyweight::ops::cpu_path {

namespace {

using Arrays = std::vector<mx::array>;

/// bias and residual are the last inputs, where they are present.
struct Extras {
  bool bias = false;
  bool residual = false;
};

Extras append_extras(
    Arrays& inputs,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual) {
  for (const auto& extra : {bias, residual}) {
    if (extra) {
      inputs.push_back(*extra);
    }
  }
  return {bias.has_value(), residual.has_value()};
}

/// What both kinds of weight share.
class LinearBase : public CpuPrimitive {
 public:
  LinearBase(mx::Stream stream, Extras extras)
      : CpuPrimitive(stream), extras_(extras) {}

 protected:
  kernels::ConstVector bias_of(const Arrays& inputs) {
    if (!extras_.bias) {
      return {};
    }
    const size_t index = inputs.size() - (extras_.residual ? 2 : 1);
    return vector_of(without_gaps(inputs[index]));
  }

  /// Gives `out` memory, the residual's own where that is free for it.
  kernels::ConstMatrix residual_of(const Arrays& inputs, mx::array& out) {
    if (!extras_.residual) {
      allocate(out);
      return {};
    }
    const auto& residual = inputs.back();
    if (residual.is_donatable() && residual.flags().row_contiguous &&
        residual.dtype() == out.dtype()) {
      out.copy_shared_buffer(residual);
      return matrix_of(residual);
    }
    allocate(out);
    return matrix_of(with_even_rows(residual));
  }

 private:
  Extras extras_;
};

class Linear : public LinearBase {
 public:
  using LinearBase::LinearBase;

  const char* name() const override {
    return "pennyweight::Linear";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    const auto weight = with_even_rows(inputs[1]);
    kernels::MatmulArgs args{
        .m = row_count(x),
        .n = weight.shape(0),
        .k = weight.shape(1),
        .x = matrix_of(x),
        .weight = matrix_of(weight),
        .bias = bias_of(inputs),
        .residual = residual_of(inputs, out)};
    args.out = matrix_of(out);
    return [args] { kernels::matmul(args); };
  }
};

class QuantizedLinear : public LinearBase {
 public:
  QuantizedLinear(mx::Stream stream, Extras extras, PackedFormat format)
      : LinearBase(stream, extras), format_(format) {}

  const char* name() const override {
    return "pennyweight::QuantizedLinear";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    Arrays weight;
    const bool affine = format_.mode == kernels::QuantMode::affine;
    for (int i = 1; i <= (affine ? 3 : 2); ++i) {
      weight.push_back(without_gaps(inputs[i]));
    }
    kernels::QuantizedMatmulArgs args{
        .m = row_count(x),
        .x = matrix_of(x),
        .weight = packed_view(format_, weight.data()),
        .bias = bias_of(inputs),
        .residual = residual_of(inputs, out)};
    args.out = matrix_of(out);
    return [args] { kernels::quantized_matmul(args); };
  }

 private:
  PackedFormat format_;
};

class Dequantize : public CpuPrimitive {
 public:
  Dequantize(mx::Stream stream, PackedFormat format)
      : CpuPrimitive(stream), format_(format) {}

  const char* name() const override {
    return "pennyweight::Dequantize";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    Arrays weight;
    for (const auto& input : inputs) {
      weight.push_back(without_gaps(input));
    }
    allocate(out);
    const auto view = packed_view(format_, weight.data());
    const kernels::DequantizeArgs args{view, 0, view.rows, matrix_of(out)};
    return [args] { kernels::dequantize(args); };
  }

 private:
  PackedFormat format_;
};

class GramAdd : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::GramAdd";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto& sum = inputs[0];
    const auto b = with_even_rows(inputs[1]);
    kernels::GramArgs args{
        .rows = row_count(b),
        .n = column_count(b),
        .b = matrix_of(b),
        .parts = {},
        .out = {}};
    for (size_t i = 2; i < inputs.size(); ++i) {
      const bool same = inputs[i].id() == inputs[1].id();
      const auto a = same ? b : with_even_rows(inputs[i]);
      args.parts.push_back({column_count(a), matrix_of(a)});
    }
    if (sum.is_donatable() && sum.flags().row_contiguous) {
      out.copy_shared_buffer(sum);
      args.out = matrix_of(out);
      return [args] { kernels::gram(args); };
    }
    const auto dense = without_gaps(sum);
    allocate(out);
    args.out = matrix_of(out);
    const void* from = dense.data<void>();
    const size_t bytes = out.nbytes();
    return [args, from, bytes] {
      std::memcpy(args.out.data, from, bytes);
      kernels::gram(args);
    };
  }
};

class MagnitudesAdd : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::MagnitudesAdd";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto sum = without_gaps(inputs[0]);
    const auto x = with_even_rows(inputs[1]);
    allocate(out);
    const kernels::AddMagnitudesArgs args{
        .rows = row_count(x),
        .columns = column_count(x),
        .x = matrix_of(x),
        .out = out.data<float>()};
    const float* from = sum.data<float>();
    return [args, from] {
      std::copy_n(from, args.columns, args.out);
      kernels::add_magnitudes(args);
    };
  }
};

class Difference : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::Difference";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    kernels::SubtractArgs args{
        .count = int64_t(out.size()),
        .a = without_gaps(inputs[0]).data<float>(),
        .b = without_gaps(inputs[1]).data<float>(),
        .out_type = kernel_type(out.dtype())};
    allocate(out);
    args.out = out.data<void>();
    return [args] { kernels::subtract(args); };
  }
};

mx::Shape result_shape(const mx::array& x, int out) {
  auto shape = x.shape();
  shape.back() = out;
  return shape;
}

}  // namespace

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual,
    mx::Dtype out_dtype,
    mx::Stream stream) {
  Arrays inputs{x, weight};
  const auto extras = append_extras(inputs, bias, residual);
  return mx::array(
      result_shape(x, weight.shape(0)),
      out_dtype,
      std::make_shared<Linear>(stream, extras),
      std::move(inputs));
}

mx::array gram_add(
    const mx::array& sum,
    const Arrays& parts,
    const mx::array& b,
    mx::Stream stream) {
  Arrays inputs{sum, b};
  inputs.insert(inputs.end(), parts.begin(), parts.end());
  return mx::array(
      sum.shape(),
      mx::float32,
      std::make_shared<GramAdd>(stream),
      std::move(inputs));
}

mx::array
magnitudes_add(const mx::array& sum, const mx::array& x, mx::Stream stream) {
  return mx::array(
      sum.shape(),
      mx::float32,
      std::make_shared<MagnitudesAdd>(stream),
      Arrays{sum, x});
}

mx::array difference(
    const mx::array& a,
    const mx::array& b,
    mx::Dtype dtype,
    mx::Stream stream) {
  return mx::array(
      a.shape(), dtype, std::make_shared<Difference>(stream), Arrays{a, b});
}

mx::array
dequantize(const QuantizedWeight& weight, mx::Dtype dtype, mx::Stream stream) {
  Arrays inputs;
  append_weight(inputs, weight);
  const int columns = int(int64_t(weight.codes.shape(1)) * 32 / weight.bits);
  return mx::array(
      {weight.codes.shape(0), columns},
      dtype,
      std::make_shared<Dequantize>(stream, format_of(weight)),
      std::move(inputs));
}

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual,
    mx::Dtype out_dtype,
    mx::Stream stream) {
  Arrays inputs{x};
  append_weight(inputs, weight);
  const auto extras = append_extras(inputs, bias, residual);
  return mx::array(
      result_shape(x, weight.codes.shape(0)),
      out_dtype,
      std::make_shared<QuantizedLinear>(stream, extras, format_of(weight)),
      std::move(inputs));
}

}  // namespace pennyweight::ops::cpu_path
