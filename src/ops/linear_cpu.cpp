#include <mlx/ops.h>

#include <utility>

#include "core/error.h"
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

/// The packed weight whose arrays begin at `first`.
QuantizedWeight
weight_from(const PackedFormat& format, const Arrays& arrays, size_t first) {
  std::optional<mx::array> biases;
  if (format.arrays() == 3) {
    biases = arrays[first + 2];
  }
  return {
      arrays[first],
      arrays[first + 1],
      biases,
      format.group,
      format.bits,
      mode_name(format.mode)};
}

/// Of codes (0) there is none, scales are 1 and biases 2.
mx::array group_gradient_of(
    const GroupGradients& groups,
    const mx::array& primal,
    int which) {
  if (which == 0) {
    throw Error(
        ErrorCode::not_supported,
        "quantized_linear",
        "codes have no gradient; ask for that of scales or biases");
  }
  return mx::astype(which == 1 ? groups.scales : groups.biases, primal.dtype());
}

/// What both kinds of weight share.
class LinearBase : public CpuPrimitive {
 public:
  LinearBase(mx::Stream stream, Extras extras)
      : CpuPrimitive(stream), extras_(extras) {}

 protected:
  /// The gradient by input `arg` that is neither x nor the weight's.
  mx::array
  extra_gradient(const Arrays& primals, const mx::array& dy, size_t arg) {
    const auto& extra = primals[arg];
    if (extras_.residual && arg + 1 == primals.size()) {
      return mx::astype(dy, extra.dtype(), stream());
    }
    const auto rows =
        mx::reshape(dy, {int(row_count(dy)), dy.shape(-1)}, stream());
    return mx::astype(
        mx::sum(mx::astype(rows, mx::float32, stream()), 0, false, stream()),
        extra.dtype(),
        stream());
  }

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

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    const auto& x = primals[0];
    const auto dy = mx::astype(cotangents[0], x.dtype(), stream());
    Arrays gradients;
    for (int arg : argnums) {
      gradients.push_back(
          arg == 0       ? linear_transposed(dy, primals[1], stream())
              : arg == 1 ? weight_gradient(dy, x, stream())
                         : extra_gradient(primals, cotangents[0], size_t(arg)));
    }
    return gradients;
  }
};

/// dy [..., out] times weight [out, in].
class LinearTransposed : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::LinearTransposed";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto dy = with_even_rows(inputs[0]);
    const auto weight = with_even_rows(inputs[1]);
    allocate(out);
    const kernels::MatmulArgs args{
        .m = row_count(dy),
        .n = weight.shape(1),
        .k = weight.shape(0),
        .x = matrix_of(dy),
        .weight = matrix_of(weight),
        .out = matrix_of(out),
        .weight_by_depth = true};
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

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    const auto& x = primals[0];
    const auto dy = mx::astype(cotangents[0], x.dtype(), stream());
    const auto weight = weight_from(format_, primals, 1);
    std::optional<GroupGradients> groups;
    Arrays gradients;
    for (int arg : argnums) {
      if (arg == 0) {
        const auto dense = dequantize(weight, x.dtype(), stream());
        gradients.push_back(linear_transposed(dy, dense, stream()));
      } else if (size_t(arg) > format_.arrays()) {
        gradients.push_back(
            extra_gradient(primals, cotangents[0], size_t(arg)));
      } else {
        if (!groups) {
          groups = group_gradients(
              weight, weight_gradient(dy, x, stream()), stream());
        }
        gradients.push_back(
            group_gradient_of(*groups, primals[size_t(arg)], arg - 1));
      }
    }
    return gradients;
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

 public:
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    const auto groups = group_gradients(
        weight_from(format_, primals, 0),
        mx::astype(cotangents[0], mx::float32, stream()),
        stream());
    Arrays gradients;
    for (int arg : argnums) {
      gradients.push_back(group_gradient_of(groups, primals[size_t(arg)], arg));
    }
    return gradients;
  }

 private:
  PackedFormat format_;
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

mx::array linear_transposed(
    const mx::array& dy,
    const mx::array& weight,
    mx::Stream stream) {
  return mx::array(
      result_shape(dy, weight.shape(1)),
      dy.dtype(),
      std::make_shared<LinearTransposed>(stream),
      Arrays{dy, weight});
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
