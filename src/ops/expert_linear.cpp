#include "ops/expert_linear.h"

#include <mlx/ops.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/error.h"
#include "kernels/access.h"
#include "ops/check.h"
#include "ops/expert_pieces.h"
#include "ops/mlx_path.h"
#include "ops/packed_view.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;

constexpr const char* kWhere = "expert_linear";

int out_of(const ExpertWeight& expert) {
  return (expert.dense ? *expert.dense : expert.packed->codes).shape(0);
}

int in_of(const ExpertWeight& expert) {
  return expert.dense
      ? expert.dense->shape(1)
      : expert.packed->codes.shape(1) * 32 / expert.packed->bits;
}

void check(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const mx::array& expert) {
  require(!experts.empty(), kWhere, "there are no experts");
  require_floating(x, kWhere, "x");
  for (const auto& own : experts) {
    const auto& first = experts.front();
    require(
        own.dense.has_value() != own.packed.has_value() &&
            own.packed.has_value() == first.packed.has_value() &&
            own.bias.has_value() == first.bias.has_value() &&
            (!own.packed || format_of(*own.packed) == format_of(*first.packed)),
        kWhere,
        "experts are of more than one form");
    require(
        x.ndim() == 2 && in_of(own) == x.shape(1) &&
            out_of(own) == out_of(first) &&
            (!own.bias || own.bias->shape() == mx::Shape{out_of(own)}),
        kWhere,
        "x " + describe(x) + " does not fit experts of [" +
            std::to_string(out_of(own)) + ", " + std::to_string(in_of(own)) +
            "], or they differ");
  }
  require(
      expert.ndim() == 1 && expert.shape(0) == x.shape(0) &&
          expert.dtype() == mx::uint32,
      kWhere,
      "expert " + describe(expert) + " has to be uint32, one for each row of " +
          "x " + describe(x));
}

/// A vector of any float type; null where there is none.
kernels::ConstVector bias_of(const Arrays& arrays, size_t at, bool present) {
  return present ? vector_of(arrays[at]) : kernels::ConstVector{};
}

class ExpertLinear : public CpuPrimitive {
 public:
  /// Of each expert the inputs hold its weight's arrays and its bias, behind
  /// x and the rows' experts. `transposed`: x [rows, out] times the weights,
  /// which are dense, without biases.
  ExpertLinear(
      mx::Stream stream,
      std::optional<PackedFormat> format,
      bool bias,
      bool transposed = false)
      : CpuPrimitive(stream),
        format_(format),
        bias_(bias),
        transposed_(transposed) {}

  const char* name() const override {
    return "pennyweight::ExpertLinear";
  }

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays& outputs) override;

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    const auto expert = without_gaps(inputs[1]);
    std::vector<Own> experts;
    const size_t weight_arrays = format_ ? format_->arrays() : 1;
    for (size_t at = 2; at < inputs.size();) {
      Arrays own;
      for (size_t i = 0; i < weight_arrays + (bias_ ? 1 : 0); ++i) {
        own.push_back(without_gaps(inputs[at++]));
      }
      experts.push_back(
          {format_ ? packed_view(*format_, own.data())
                   : kernels::QuantizedMatrix{},
           format_ ? kernels::ConstMatrix{} : matrix_of(std::as_const(own[0])),
           bias_of(own, weight_arrays, bias_)});
    }
    allocate(out);
    const ExpertRows rows{
        row_count(x),
        column_count(x),
        out.shape(1),
        matrix_of(x),
        matrix_of(out),
        expert.data<uint32_t>()};
    const Form form{format_.has_value(), transposed_};
    return [rows, form, experts = std::move(experts)] {
      multiply_pieces(
          rows,
          [&](uint32_t expert,
              int64_t count,
              const kernels::ConstMatrix& x,
              const kernels::Matrix& out) {
            multiply(rows, count, x, out, experts.at(expert), form);
          });
    };
  }

 private:
  struct Own {
    kernels::QuantizedMatrix packed;
    kernels::ConstMatrix dense;
    kernels::ConstVector bias;
  };

  struct Form {
    bool packed;
    bool transposed;
  };

  static void multiply(
      const ExpertRows& rows,
      int64_t count,
      const kernels::ConstMatrix& x,
      const kernels::Matrix& out,
      const Own& own,
      const Form& form) {
    if (form.packed) {
      kernels::quantized_matmul(
          {.m = count,
           .x = x,
           .weight = own.packed,
           .bias = own.bias,
           .out = out});
    } else {
      kernels::matmul(
          {.m = count,
           .n = rows.width,
           .k = rows.in,
           .x = x,
           .weight = own.dense,
           .bias = own.bias,
           .out = out,
           .weight_by_depth = form.transposed});
    }
  }

  std::optional<PackedFormat> format_;
  bool bias_;
  bool transposed_;
};

/// Of the rows of one expert, dy^T x in float32.
class ExpertWeightGradient : public CpuPrimitive {
 public:
  ExpertWeightGradient(mx::Stream stream, uint32_t expert)
      : CpuPrimitive(stream), expert_(expert) {}

  const char* name() const override {
    return "pennyweight::ExpertWeightGradient";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto dy = with_even_rows(inputs[0]);
    const auto x = with_even_rows(inputs[1]);
    const auto expert = without_gaps(inputs[2]);
    allocate(out);
    const kernels::GramArgs all{
        .rows = row_count(x),
        .n = column_count(x),
        .b = matrix_of(x),
        .parts = {{column_count(dy), matrix_of(dy)}},
        .out = matrix_of(out)};
    const auto* of_row = expert.data<uint32_t>();
    const size_t bytes = out.nbytes();
    // The stream may not have chosen the experts before the task runs.
    return [all, of_row, own = expert_, bytes] {
      std::memset(all.out.data, 0, bytes);
      const auto [first, last] =
          std::equal_range(of_row, of_row + all.rows, own);
      if (first == last) {
        return;
      }
      auto args = all;
      args.rows = last - first;
      const int64_t row = first - of_row;
      args.b = kernels::from_row(all.b, row);
      args.parts.front().a = kernels::from_row(all.parts.front().a, row);
      kernels::gram(args);
    };
  }

 private:
  uint32_t expert_;
};

Arrays ExpertLinear::vjp(
    const Arrays& primals,
    const Arrays& cotangents,
    const std::vector<int>& argnums,
    const Arrays&) {
  if (format_) {
    throw Error(
        ErrorCode::not_supported,
        kWhere,
        "packed experts have no gradient; expand them");
  }
  const auto& x = primals[0];
  const auto& expert = primals[1];
  const auto dy = mx::astype(cotangents[0], x.dtype(), stream());
  const size_t arrays = bias_ ? 2 : 1;
  Arrays gradients;
  for (int arg : argnums) {
    if (arg == 0) {
      Arrays inputs{dy, expert};
      for (size_t at = 2; at < primals.size(); at += arrays) {
        inputs.push_back(primals[at]);
      }
      gradients.push_back(mx::array(
          x.shape(),
          x.dtype(),
          std::make_shared<ExpertLinear>(stream(), std::nullopt, false, true),
          std::move(inputs)));
      continue;
    }
    if (arg == 1) {
      gradients.push_back(mx::zeros_like(expert, stream()));
      continue;
    }
    const size_t at = size_t(arg) - 2;
    const auto own = uint32_t(at / arrays);
    const auto& primal = primals[size_t(arg)];
    if (at % arrays == 0) {
      gradients.push_back(mx::array(
          primal.shape(),
          mx::float32,
          std::make_shared<ExpertWeightGradient>(stream(), own),
          Arrays{dy, x, expert}));
    } else {
      const auto chosen = mx::equal(expert, mx::array(own), stream());
      const auto rows = mx::where(
          mx::expand_dims(chosen, 1, stream()),
          mx::astype(dy, mx::float32, stream()),
          mx::array(0.0f),
          stream());
      gradients.push_back(mx::astype(
          mx::sum(rows, 0, false, stream()), primal.dtype(), stream()));
    }
  }
  return gradients;
}

}  // namespace

// As one stack, which MLX's gathered products want.
mx::array mlx_path::expert_linear(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const mx::array& expert,
    mx::Dtype out_dtype) {
  Arrays weights;
  Arrays biases;
  for (const auto& own : experts) {
    weights.push_back(
        own.dense ? *own.dense : mlx_path::dequantize(*own.packed, x.dtype()));
    if (own.bias) {
      biases.push_back(*own.bias);
    }
  }
  const auto stack = mx::stack(weights);
  const auto type =
      mx::promote_types(mx::promote_types(x.dtype(), stack.dtype()), out_dtype);
  auto result = mx::squeeze(
      mx::gather_mm(
          mx::expand_dims(mx::astype(x, type), 1),
          mx::swapaxes(mx::astype(stack, type), 1, 2),
          std::nullopt,
          expert),
      1);
  if (!biases.empty()) {
    result = mx::add(result, mx::take(mx::stack(biases), expert, 0));
  }
  return mx::astype(result, out_dtype);
}

mx::array expert_linear(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const mx::array& expert,
    std::optional<mx::Dtype> out_dtype) {
  check(x, experts, expert);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, kWhere);
  const auto cpu = cpu_stream();
  if (!cpu) {
    return mlx_path::expert_linear(x, experts, expert, type);
  }
  Arrays inputs{x, expert};
  for (const auto& own : experts) {
    if (own.dense) {
      inputs.push_back(*own.dense);
    } else {
      append_weight(inputs, *own.packed);
    }
    if (own.bias) {
      inputs.push_back(*own.bias);
    }
  }
  const auto& first = experts.front();
  const auto format =
      first.packed ? std::optional(format_of(*first.packed)) : std::nullopt;
  return mx::array(
      {x.shape(0), out_of(first)},
      type,
      std::make_shared<ExpertLinear>(*cpu, format, first.bias.has_value()),
      std::move(inputs));
}

}  // namespace pennyweight::ops
