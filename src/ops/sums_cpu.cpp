#include <mlx/ops.h>

#include <cstring>
#include <utility>

#include "ops/check.h"
#include "ops/cpu_path.h"
#include "ops/packed_view.h"
#include "ops/primitive.h"

namespace pennyweight::ops::cpu_path {

namespace {

using Arrays = std::vector<mx::array>;

class GramAdd : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::GramAdd";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
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
    const auto place = go_on(inputs[0], out);
    args.out = matrix_of(out);
    return [args, place] {
      place.copy();
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

/// sum + x, in sum's own memory where nothing else needs it.
class Accumulate : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::Accumulate";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = without_gaps(inputs[1]);
    const auto place = go_on(inputs[0], out);
    const kernels::AccumulateArgs args{
        .count = int64_t(out.size()),
        .x = x.data<float>(),
        .sum = out.data<float>()};
    return [args, place] {
      place.copy();
      kernels::accumulate(args);
    };
  }
};

/// dy^T x, float32.
class WeightGradient : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::WeightGradient";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto dy = with_even_rows(inputs[0]);
    const auto x = with_even_rows(inputs[1]);
    allocate(out);
    const kernels::GramArgs args{
        .rows = row_count(x),
        .n = column_count(x),
        .b = matrix_of(x),
        .parts = {{column_count(dy), matrix_of(dy)}},
        .out = matrix_of(out)};
    const size_t bytes = out.nbytes();
    return [args, bytes] {
      std::memset(args.out.data, 0, bytes);
      kernels::gram(args);
    };
  }
};

/// [2, rows, groups]: by scales, then by biases.
class GroupGradient : public CpuPrimitive {
 public:
  GroupGradient(mx::Stream stream, PackedFormat format)
      : CpuPrimitive(stream), format_(format) {}

  const char* name() const override {
    return "pennyweight::GroupGradient";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto codes = without_gaps(inputs[0]);
    const auto dw = with_even_rows(inputs[1]);
    allocate(out);
    kernels::GroupGradientArgs args{
        .weight =
            {.bits = format_.bits,
             .group = format_.group,
             .rows = codes.shape(0),
             .columns = dw.shape(1),
             .codes = codes.data<void>()},
        .dw = matrix_of(dw),
        .dscales = out.data<float>(),
        .dbiases = out.data<float>() + out.size() / 2};
    return [args] { kernels::group_gradient(args); };
  }

 private:
  PackedFormat format_;
};

}  // namespace

mx::array
weight_gradient(const mx::array& dy, const mx::array& x, mx::Stream stream) {
  return mx::array(
      {dy.shape(-1), x.shape(-1)},
      mx::float32,
      std::make_shared<WeightGradient>(stream),
      Arrays{dy, x});
}

mx::array
accumulate(const mx::array& sum, const mx::array& x, mx::Stream stream) {
  return mx::array(
      sum.shape(),
      mx::float32,
      std::make_shared<Accumulate>(stream),
      Arrays{sum, x});
}

GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw,
    mx::Stream stream) {
  check_affine(weight);
  const int rows = dw.shape(0);
  const int groups = dw.shape(1) / weight.group_size;
  const mx::array both(
      {2, rows, groups},
      mx::float32,
      std::make_shared<GroupGradient>(stream, format_of(weight)),
      Arrays{weight.codes, dw});
  const auto part = [&](int i) {
    return mx::squeeze(
        mx::slice(both, {i, 0, 0}, {i + 1, rows, groups}, stream), 0, stream);
  };
  return {part(0), part(1)};
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

}  // namespace pennyweight::ops::cpu_path
