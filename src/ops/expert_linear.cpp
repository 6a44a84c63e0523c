#include "ops/expert_linear.h"

#include <mlx/ops.h>

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "ops/check.h"
#include "ops/expert_pieces.h"
#include "ops/packed_view.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

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

/// What all experts of an op have in common. Behind x and the rows' experts its
/// inputs hold the arrays of each expert's weight and its bias.
struct Form {
  std::optional<PackedFormat> format = std::nullopt;  // none: dense
  bool bias = false;
  bool transposed = false;  // x [rows, out] times the weights, without biases

  size_t weight_arrays() const {
    return format ? format->arrays() : 1;
  }
  size_t arrays() const {
    return weight_arrays() + (bias ? 1 : 0);
  }
  /// Where the first array of an expert is among `count` inputs.
  std::vector<size_t> firsts(size_t count) const {
    std::vector<size_t> all;
    for (size_t at = kFirst; at < count; at += arrays()) {
      all.push_back(at);
    }
    return all;
  }
  static constexpr size_t kFirst = 2;
};

/// One expert as kernels take it.
struct Own {
  kernels::QuantizedMatrix packed;
  kernels::ConstMatrix dense;
  kernels::ConstVector bias;
};

Own view_of(CpuWork& work, const Form& form, size_t at) {
  Own own;
  if (form.format) {
    own.packed = packed_view(*form.format, work, at);
  } else {
    own.dense = {work.vector(at).data, work.type(at), work.columns(at)};
  }
  if (form.bias) {
    own.bias = work.vector(at + form.weight_arrays());
  }
  return own;
}

/// The i'th arrays of all experts as one stack.
mx::array stacked(const Arrays& in, const Form& form, size_t i) {
  Arrays parts;
  for (const size_t at : form.firsts(in.size())) {
    parts.push_back(in[at + i]);
  }
  return mx::stack(parts);
}

// x [rows, 1, in] by MLX's gathered products, which take all experts as one
// stack: packed ones stay packed.
mx::array gathered(
    const mx::array& x,
    const Arrays& in,
    const Form& form,
    mx::Dtype type) {
  if (!form.format) {
    const auto weights = mx::astype(stacked(in, form, 0), type);
    return mx::gather_mm(x, mx::swapaxes(weights, 1, 2), std::nullopt, in[1]);
  }
  auto weight = weight_from(*form.format, in, Form::kFirst);
  weight.codes = stacked(in, form, 0);
  weight.scales = stacked(in, form, 1);
  if (weight.biases) {
    weight.scales = mx::astype(weight.scales, type);
    weight.biases = mx::astype(stacked(in, form, 2), type);
  }
  return mx::gather_qmm(
      x,
      weight.codes,
      weight.scales,
      weight.biases,
      std::nullopt,
      in[1],
      true,
      weight.group_size,
      weight.bits,
      weight.mode,
      std::nullopt,
      true);
}

mx::array by_mlx(const Arrays& in, const Form& form, mx::Dtype dtype) {
  // On a CPU MLX's gather_mm is for float32 alone.
  auto type = mx::float32;
  if (mx::default_device() != mx::Device::cpu) {
    type = mx::promote_types(in[0].dtype(), dtype);
    type =
        form.format ? type : mx::promote_types(type, in[Form::kFirst].dtype());
  }
  auto result = mx::squeeze(
      gathered(mx::expand_dims(mx::astype(in[0], type), 1), in, form, type), 1);
  if (form.bias) {
    result =
        result + mx::take(stacked(in, form, form.weight_arrays()), in[1], 0);
  }
  return mx::astype(result, dtype);
}

// Of a panel's bytes, as of quantized_matmul's: it stays in a core's cache.
constexpr int64_t kPanelBytes = 4 << 20;
constexpr int64_t kPanelStep = 64;  // rows of a panel are a multiple of it

/// out [m, columns], float32, is x [m, rows] times the weight, of which some
/// rows at a time are expanded to x's type.
void multiply_transposed(
    const kernels::QuantizedMatrix& weight,
    int64_t m,
    const kernels::ConstMatrix& x,
    const kernels::Matrix& out) {
  thread_local kernels::Scratch scratch;
  const int64_t row = weight.columns * int64_t(kernels::size_of(x.type));
  const int64_t most =
      std::max(kPanelStep, kPanelBytes / row / kPanelStep * kPanelStep);
  for (int64_t from = 0; from < weight.rows; from += most) {
    const int64_t rows = std::min(most, weight.rows - from);
    const kernels::Matrix panel{
        scratch.get<char>(rows * row), x.type, weight.columns};
    kernels::dequantize({weight, from, rows, panel});
    kernels::matmul(
        {.m = m,
         .n = weight.columns,
         .k = rows,
         .x = kernels::from_column(x, from),
         .weight = kernels::as_const(panel),
         .residual = from > 0 ? kernels::as_const(out) : kernels::ConstMatrix{},
         .out = out,
         .weight_by_depth = true});
  }
}

Task multiply_task(CpuWork& work, const Form& form) {
  std::vector<Own> experts;
  for (const size_t at : form.firsts(work.count())) {
    experts.push_back(view_of(work, form, at));
  }
  const ExpertRows rows{
      .count = work.rows(0),
      .in = work.columns(0),
      .width = work.out_size(1),
      .x = work.matrix(0),
      .out = work.result(),
      .expert = work.data<uint32_t>(1)};
  const bool packed = form.format.has_value();
  return [=, transposed = form.transposed, experts = std::move(experts)] {
    multiply_pieces(
        rows,
        [&](uint32_t expert,
            int64_t count,
            const kernels::ConstMatrix& x,
            const kernels::Matrix& out) {
          const Own& own = experts.at(expert);
          if (packed && transposed) {
            multiply_transposed(own.packed, count, x, out);
          } else if (packed) {
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
                 .weight_by_depth = transposed});
          }
        });
  };
}

/// dy^T x, float32, over the rows of one expert.
mx::array by_weight(
    const mx::array& dy,
    const mx::array& x,
    const mx::array& expert,
    uint32_t own) {
  return make({
      .name = "expert_weight_gradient",
      .shape = {dy.shape(1), x.shape(1)},
      .dtype = mx::float32,
      .inputs = {dy, x, expert},
      .cpu = [own](CpuWork& work) -> Task {
        const kernels::GramArgs all{
            .rows = work.rows(1),
            .n = work.columns(1),
            .b = work.matrix(1),
            .parts = {{work.columns(0), work.matrix(0)}},
            .out = work.zeros()};
        // Which rows are the expert's is known only when the task runs: what
        // chooses the experts may run on the stream before it.
        return [all, own, of_row = work.data<uint32_t>(2)] {
          const auto [first, last] =
              std::equal_range(of_row, of_row + all.rows, own);
          if (first == last) {
            return;
          }
          auto args = all;
          args.rows = last - first;
          args.b = kernels::from_row(all.b, first - of_row);
          args.parts[0].a = kernels::from_row(all.parts[0].a, first - of_row);
          kernels::gram(args);
        };
      },
  });
}

mx::array by_x(const Arrays& in, const mx::array& dy, const Form& form) {
  Arrays inputs{dy, in[1]};
  for (const size_t at : form.firsts(in.size())) {
    for (size_t i = 0; i < form.weight_arrays(); ++i) {
      inputs.push_back(in[at + i]);
    }
  }
  const Form own{.format = form.format, .transposed = true};
  // Of packed weights sums are made a panel at a time.
  const auto type = form.format ? mx::float32 : in[0].dtype();
  return mx::astype(
      make({
          .name = "expert_linear_transposed",
          .shape = in[0].shape(),
          .dtype = type,
          .inputs = std::move(inputs),
          .cpu = [own](CpuWork& work) { return multiply_task(work, own); },
      }),
      in[0].dtype());
}

mx::array by_bias(const mx::array& dy, const mx::array& expert, uint32_t own) {
  const auto chosen = mx::expand_dims(expert == mx::array(own), 1);
  return mx::sum(mx::where(chosen, as_float32(dy), mx::array(0.0f)), 0);
}

GradientOf
gradients(const Arrays& in, const mx::array& by_result, const Form& form) {
  const auto dy = mx::astype(by_result, in[0].dtype());
  return [=](size_t i) {
    if (i == 0) {
      return by_x(in, dy, form);
    }
    if (i == 1) {
      return mx::zeros_like(in[1]);
    }
    const size_t at = i - Form::kFirst;
    const auto own = uint32_t(at / form.arrays());
    if (at % form.arrays() >= form.weight_arrays()) {
      return mx::astype(by_bias(dy, in[1], own), in[i].dtype());
    }
    if (form.format) {
      no_gradient(kWhere, "packed experts have no gradient; expand them");
    }
    return by_weight(dy, in[0], in[1], own);
  };
}

}  // namespace

mx::array expert_linear(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const mx::array& expert,
    std::optional<mx::Dtype> out_dtype) {
  check(x, experts, expert);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, kWhere);
  const auto& first = experts.front();
  Form form{.bias = first.bias.has_value()};
  if (first.packed) {
    form.format = format_of(*first.packed);
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
  return make({
      .name = kWhere,
      .shape = {x.shape(0), out_of(first)},
      .dtype = type,
      .inputs = std::move(inputs),
      .fallback = [=](const Arrays& in) { return by_mlx(in, form, type); },
      .cpu = [=](CpuWork& work) { return multiply_task(work, form); },
      .vjp = [=](const Arrays& in,
                 const mx::array& dy) { return gradients(in, dy, form); },
  });
}

}  // namespace pennyweight::ops
