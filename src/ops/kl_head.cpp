#include "ops/kl_head.h"

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "ops/check.h"
#include "ops/mlx_path.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;
using Reference = std::variant<HeadRows, TopLogits>;

constexpr const char* kWhere = "kl_head";

/// x, weight and perhaps bias of a head at `next` of the inputs.
kernels::HeadSide side_of(const Arrays& arrays, bool bias, size_t next) {
  return {
      .k = column_count(arrays[next]),
      .x = matrix_of(arrays[next]),
      .weight = matrix_of(arrays[next + 1]),
      .bias = bias ? vector_of(arrays[next + 2]) : kernels::ConstVector{}};
}

void append_side(Arrays& inputs, const HeadRows& side) {
  inputs.push_back(side.x);
  inputs.push_back(side.weight);
  if (side.bias) {
    inputs.push_back(*side.bias);
  }
}

/// One flat array, since primitives have one result: loss [rows], dx [rows,
/// in] and perhaps dweight [vocab, in].
class KlHeadOp : public CpuPrimitive {
 public:
  struct Parts {
    bool bias = false;
    bool reference = false;  // a head; else the largest logits
    bool reference_bias = false;
    bool weight_gradient = false;
  };

  KlHeadOp(mx::Stream stream, const KlOptions& options, const Parts& parts)
      : CpuPrimitive(stream), options_(options), parts_(parts) {}

  const char* name() const override {
    return "pennyweight::KlHead";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    Arrays dense;
    for (const auto& input : inputs) {
      dense.push_back(without_gaps(input));
    }
    allocate(out);
    const size_t next = parts_.bias ? 3 : 2;
    kernels::KlHeadArgs args{
        .rows = row_count(dense[0]),
        .columns = dense[1].shape(0),
        .head = side_of(dense, parts_.bias, 0),
        .temperature = options_.temperature,
        .factor = options_.factor};
    args.head.cap = options_.cap;
    if (parts_.reference) {
      args.reference = side_of(dense, parts_.reference_bias, next);
      args.reference.cap = options_.reference_cap;
    } else {
      args.top = {
          column_count(dense[next]),
          matrix_of(std::as_const(dense[next])),
          dense[next + 1].data<uint32_t>()};
    }
    auto* at = out.data<float>();
    args.loss = at;
    at += args.rows;
    args.dx = {at, kernels::DType::f32, args.head.k};
    if (parts_.weight_gradient) {
      at += args.rows * args.head.k;
      args.dweight = {at, kernels::DType::f32, args.head.k};
    }
    return [args] {
      if (args.dweight.data) {
        std::memset(
            args.dweight.data, 0, size_t(4 * args.columns * args.head.k));
      }
      kernels::kl_head(args);
    };
  }

 private:
  KlOptions options_;
  Parts parts_;
};

/// uint32 [2 * rows, count]: columns, then the bits of the values.
class TopLogitsOp : public CpuPrimitive {
 public:
  TopLogitsOp(mx::Stream stream, bool bias, float cap)
      : CpuPrimitive(stream), bias_(bias), cap_(cap) {}

  const char* name() const override {
    return "pennyweight::TopLogits";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    Arrays dense;
    for (const auto& input : inputs) {
      dense.push_back(without_gaps(input));
    }
    allocate(out);
    const int64_t count = out.shape(1);
    kernels::TopHeadArgs args{
        .rows = row_count(dense[0]),
        .columns = dense[1].shape(0),
        .count = count,
        .head = side_of(dense, bias_, 0),
        .values =
            {out.data<uint32_t>() + out.size() / 2, kernels::DType::f32, count},
        .indices = out.data<uint32_t>()};
    args.head.cap = cap_;
    return [args] { kernels::top_head(args); };
  }

 private:
  bool bias_;
  float cap_;
};

class FisherSlopesOp : public CpuPrimitive {
 public:
  FisherSlopesOp(
      mx::Stream stream,
      bool bias,
      float cap,
      uint64_t seed,
      int64_t first_row)
      : CpuPrimitive(stream),
        bias_(bias),
        cap_(cap),
        seed_(seed),
        first_row_(first_row) {}

  const char* name() const override {
    return "pennyweight::FisherSlopes";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    Arrays dense;
    for (const auto& input : inputs) {
      dense.push_back(without_gaps(input));
    }
    allocate(out);
    kernels::FisherHeadArgs args{
        .rows = row_count(dense[0]),
        .columns = dense[1].shape(0),
        .head = side_of(dense, bias_, 0),
        .seed = seed_,
        .first_row = first_row_,
        .dx = matrix_of(out)};
    args.head.cap = cap_;
    return [args] { kernels::fisher_head(args); };
  }

 private:
  bool bias_;
  float cap_;
  uint64_t seed_;
  int64_t first_row_;
};

void check_side(const HeadRows& side) {
  check_linear(side.x, side.weight, side.bias);
  require(side.x.ndim() == 2, kWhere, "x " + describe(side.x) + " is no rows");
}

void check(const HeadRows& head, const Reference& reference) {
  check_side(head);
  if (const auto* other = std::get_if<HeadRows>(&reference)) {
    check_side(*other);
    require(
        other->x.shape(0) == head.x.shape(0) &&
            other->weight.shape(0) == head.weight.shape(0),
        kWhere,
        "the reference has other rows or another vocabulary");
    return;
  }
  const auto& top = std::get<TopLogits>(reference);
  require_floating(top.values, kWhere, "the reference's logits");
  require(
      top.values.ndim() == 2 && top.values.shape(0) == head.x.shape(0) &&
          top.values.shape(1) >= 1 &&
          top.values.shape(1) <= head.weight.shape(0) &&
          top.columns.shape() == top.values.shape() &&
          top.columns.dtype() == mx::uint32,
      kWhere,
      "the reference's largest logits " + describe(top.values) +
          " and columns " + describe(top.columns) + " do not fit");
}

mx::array capped_logits(const HeadRows& side, float cap) {
  return cap_logits(
      mlx_path::linear(side.x, side.weight, side.bias, mx::float32), cap);
}

mx::array log_softmax(const mx::array& x) {
  return mx::subtract(x, mx::logsumexp(x, -1, true));
}

}  // namespace

KlHead mlx_path::kl_head(
    const HeadRows& head,
    const Reference& reference,
    const KlOptions& options) {
  const mx::array temperature(options.temperature);
  const auto* top = std::get_if<TopLogits>(&reference);
  const auto target = log_softmax(mx::divide(
      top ? mx::astype(top->values, mx::float32)
          : capped_logits(std::get<HeadRows>(reference), options.reference_cap),
      temperature));
  const auto losses = [&](const Arrays& inputs) {
    auto logits = capped_logits({inputs[0], inputs[1], head.bias}, options.cap);
    if (top) {
      logits = mx::take_along_axis(logits, top->columns, -1);
    }
    const auto own = log_softmax(mx::divide(logits, temperature));
    return Arrays{
        mx::sum(mx::multiply(mx::exp(target), mx::subtract(target, own)), -1)};
  };
  const auto wide = [](const mx::array& x) {
    return mx::astype(x, mx::float32);
  };
  const auto [loss, gradients] = mx::vjp(
      losses,
      {wide(head.x), wide(head.weight)},
      {mx::full({head.x.shape(0)}, options.factor)});
  return {loss[0], gradients[0], gradients[1]};
}

KlHead kl_head(
    const HeadRows& head,
    const Reference& reference,
    const KlOptions& options,
    bool weight_gradient) {
  check(head, reference);
  const auto cpu = cpu_stream();
  if (!cpu) {
    return mlx_path::kl_head(head, reference, options);
  }
  Arrays inputs;
  append_side(inputs, head);
  KlHeadOp::Parts parts{
      .bias = head.bias.has_value(), .weight_gradient = weight_gradient};
  if (const auto* other = std::get_if<HeadRows>(&reference)) {
    parts.reference = true;
    parts.reference_bias = other->bias.has_value();
    append_side(inputs, *other);
  } else {
    const auto& top = std::get<TopLogits>(reference);
    inputs.push_back(top.values);
    inputs.push_back(top.columns);
  }
  const int rows = head.x.shape(0);
  const int in = head.x.shape(1);
  const int vocab = head.weight.shape(0);
  const int64_t size =
      rows + int64_t(in) * (rows + (weight_gradient ? vocab : 0));
  require(
      size <= std::numeric_limits<int>::max(),
      kWhere,
      "the head " + describe(head.weight) + " is too large");
  const mx::array flat(
      {int(size)},
      mx::float32,
      std::make_shared<KlHeadOp>(*cpu, options, parts),
      std::move(inputs));
  const auto part = [&](int first, int count) {
    return mx::reshape(
        mx::slice(flat, {first}, {first + count * in}), {count, in});
  };
  KlHead result{mx::slice(flat, {0}, {rows}), part(rows, rows), std::nullopt};
  if (weight_gradient) {
    result.dweight = part(rows + rows * in, vocab);
  }
  return result;
}

TopLogits
top_logits(const HeadRows& head, float cap, int count, mx::Dtype dtype) {
  check_side(head);
  require_floating(dtype, "top_logits");
  require(
      count >= 1 && count <= head.weight.shape(0),
      "top_logits",
      std::to_string(count) + " logits were asked for of " +
          std::to_string(head.weight.shape(0)));
  const int rows = head.x.shape(0);
  const auto cpu = cpu_stream();
  if (!cpu) {
    const auto logits = capped_logits(head, cap);
    const auto order = mx::argpartition(mx::negative(logits), count - 1, -1);
    const auto columns = mx::sort(mx::slice(order, {0, 0}, {rows, count}), -1);
    return {
        mx::astype(mx::take_along_axis(logits, columns, -1), dtype), columns};
  }
  Arrays inputs;
  append_side(inputs, head);
  const mx::array both(
      {2 * rows, count},
      mx::uint32,
      std::make_shared<TopLogitsOp>(*cpu, head.bias.has_value(), cap),
      std::move(inputs));
  const auto values = mx::slice(both, {rows, 0}, {2 * rows, count});
  return {
      mx::astype(mx::view(values, mx::float32), dtype),
      mx::slice(both, {0, 0}, {rows, count})};
}

mx::array fisher_slopes(
    const HeadRows& head,
    float cap,
    uint64_t seed,
    int64_t first_row) {
  check_side(head);
  const auto cpu = cpu_stream();
  if (!cpu) {
    const auto logits = [&](const Arrays& inputs) {
      return Arrays{capped_logits({inputs[0], head.weight, head.bias}, cap)};
    };
    const auto p = mx::softmax(logits({head.x})[0], -1, true);
    const auto key = mx::random::key(seed + (uint64_t(first_row) << 20));
    const auto signs = mx::where(
        mx::random::bernoulli(mx::array(0.5f), p.shape(), key),
        mx::array(1.0f),
        mx::array(-1.0f));
    const auto q = mx::multiply(mx::sqrt(p), signs);
    const auto v = mx::subtract(q, mx::multiply(p, mx::sum(q, -1, true)));
    return mx::vjp(logits, {mx::astype(head.x, mx::float32)}, {v}).second[0];
  }
  Arrays inputs;
  append_side(inputs, head);
  return mx::array(
      head.x.shape(),
      mx::float32,
      std::make_shared<FisherSlopesOp>(
          *cpu, head.bias.has_value(), cap, seed, first_row),
      std::move(inputs));
}

}  // namespace pennyweight::ops
