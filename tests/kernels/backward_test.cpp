#include "kernels/backward.h"

#include "kernels/kernel_test.h"
#include "kernels/reference/gated.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels {

namespace {

class Backward : public KernelTest {};

constexpr DType kBackwardTypes[] = {DType::f32, DType::bf16, DType::f16};

/// Sums of float32 terms, whose rounding is relative to the largest.
double slack(int64_t terms, double largest) {
  return double(terms) * 0x1p-23 * largest;
}

double largest_of(const Tensor& x) {
  double largest = 0;
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t j = 0; j < x.columns(); ++j) {
      largest = std::max(largest, std::abs(double(x.at(i, j))));
    }
  }
  return largest;
}

double least_rms(const Tensor& x) {
  double least = HUGE_VAL;
  for (int64_t i = 0; i < x.rows(); ++i) {
    double square = 0;
    for (int64_t j = 0; j < x.columns(); ++j) {
      square += double(x.at(i, j)) * x.at(i, j);
    }
    least = std::min(least, std::sqrt(square / double(x.columns())));
  }
  return least;
}

void expect_same(const Tensor& actual, const Tensor& expected, double allowed) {
  for (int64_t i = 0; i < actual.rows(); ++i) {
    for (int64_t j = 0; j < actual.columns(); ++j) {
      expect_close(
          actual.at(i, j),
          expected.at(i, j),
          actual.type(),
          allowed,
          std::to_string(i) + ", " + std::to_string(j));
    }
  }
  actual.expect_gaps_untouched();
}

TEST_P(Backward, RmsNorm) {
  for (DType type : kBackwardTypes) {
    for (int64_t columns : {1, 19, 64, 333}) {
      auto x = Tensor::random(DType::f32, 5, columns, 1, 1.0, 3);
      auto weight = Tensor::random(type, 1, columns, 2);
      auto dy = Tensor::random(type, 5, columns, 3, 1.0, 2);
      Tensor dx(type, 5, columns, 4);
      Tensor expected(DType::f32, 5, columns);
      RmsNormBackwardArgs args{
          .rows = 5,
          .columns = columns,
          .eps = 1e-5f,
          .x = x.view(),
          .weight = {weight.data(), type},
          .dy = dy.view(),
          .dx = dx.out()};
      kernels().rms_norm_backward(args);
      args.dx = expected.out();
      reference::rms_norm_backward(args);
      // The result is a difference of terms of up to this size.
      const double term = largest_of(dy) * largest_of(weight) / least_rms(x);
      expect_same(dx, expected, slack(8, term));
    }
  }
}

TEST_P(Backward, RmsNormIsTheSlope) {
  const int64_t n = 7;
  auto x = Tensor::random(DType::f32, 1, n, 1);
  auto weight = Tensor::random(DType::f32, 1, n, 2);
  auto dy = Tensor::random(DType::f32, 1, n, 3);
  Tensor dx(DType::f32, 1, n);
  kernels().rms_norm_backward(
      {1,
       n,
       1e-5f,
       x.view(),
       {weight.data(), DType::f32},
       dy.view(),
       dx.out()});
  const auto loss = [&](int64_t at, double step) {
    double square = 0;
    std::vector<double> moved;
    for (int64_t j = 0; j < n; ++j) {
      moved.push_back(double(x.at(0, j)) + (j == at ? step : 0.0));
      square += moved.back() * moved.back();
    }
    const double r = 1 / std::sqrt(square / n + 1e-5);
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      sum += moved[size_t(j)] * r * weight.at(0, j) * dy.at(0, j);
    }
    return sum;
  };
  for (int64_t j = 0; j < n; ++j) {
    const double slope = (loss(j, 1e-5) - loss(j, -1e-5)) / 2e-5;
    EXPECT_NEAR(dx.at(0, j), slope, 1e-6 * (1 + std::abs(slope)));
  }
}

constexpr GateKind kKinds[] = {
    GateKind::silu,
    GateKind::gelu,
    GateKind::clipped,
    GateKind::relu,
    GateKind::none};

TEST_P(Backward, Swiglu) {
  for (GateKind kind : kKinds) {
    for (DType type : kBackwardTypes) {
      auto gate = Tensor::random(type, 4, 77, 1, 5.0, 2);
      auto up = Tensor::random(type, 4, 77, 2, 5.0, 1);
      auto dy = Tensor::random(type, 4, 77, 3);
      Tensor dgate(type, 4, 77, 1), dup(type, 4, 77);
      Tensor by_gate(DType::f32, 4, 77), by_up(DType::f32, 4, 77);
      GatedActivationBackwardArgs args{
          .rows = 4,
          .columns = 77,
          .gate = gate.view(),
          .up = up.view(),
          .dy = dy.view(),
          .dgate = dgate.out(),
          .dup = dup.out(),
          .kind = kind};
      kernels().gated_activation_backward(args);
      args.dgate = by_gate.out();
      args.dup = by_up.out();
      reference::gated_activation_backward(args);
      expect_same(dgate, by_gate, slack(8, largest_of(by_gate)));
      expect_same(dup, by_up, slack(8, largest_of(by_up)));
    }
  }
}

TEST_P(Backward, SwigluIsTheSlope) {
  for (GateKind kind : kKinds) {
    for (float x : {-3.0f, -0.4f, 0.0f, 0.7f, 2.5f}) {
      if (kind == GateKind::relu && x == 0) {
        continue;  // a corner has no slope
      }
      float up = 0.8f, dy = 1.0f, dgate = 0, dup = 0;
      kernels().gated_activation_backward(
          {1,
           1,
           {&x, DType::f32, 1},
           {&up, DType::f32, 1},
           {&dy, DType::f32, 1},
           {&dgate, DType::f32, 1},
           {&dup, DType::f32, 1},
           kind});
      const auto y = [&](double g) {
        return reference::Gated(kind, g, double(up)).value();
      };
      EXPECT_NEAR(dgate, (y(x + 1e-5) - y(x - 1e-5)) / 2e-5, 1e-6);
      const double factor = reference::Gated(kind, x, double(up)).up;
      EXPECT_NEAR(dup, y(x) / factor, 1e-6);
    }
  }
}

struct BackwardCase {
  int64_t length = 40;
  int64_t keys = 40;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 16;
  bool causal = true;
  int64_t window = 0;
  float cap = 0;
  bool sinks = false;
};

HeadsView view_of(const Tensor& x, int64_t rows, int64_t heads) {
  const int64_t d = x.columns() / heads;
  return {x.data(), rows * x.stride(), x.stride(), d};
}

/// dq, dk and dv of two batch rows.
struct Gradients {
  Tensor q, k, v;
};

struct AttentionInput {
  BackwardCase own;
  Tensor q, k, v, dout;
  std::vector<float> sinks;

  AttentionInput(const BackwardCase& of, DType type)
      : own(of),
        q(Tensor::random(type, 2 * of.length, of.heads * of.head_dim, 1, 1, 8)),
        k(Tensor::random(
            type,
            2 * of.keys,
            of.kv_heads * of.head_dim,
            2,
            1,
            16)),
        v(Tensor::random(type, 2 * of.keys, of.kv_heads * of.head_dim, 3)),
        dout(Tensor::random(type, 2 * of.length, of.heads * of.head_dim, 4)),
        sinks(size_t(of.heads), 0.5f) {}

  Gradients run(void (*kernel)(const AttentionBackwardArgs&)) const {
    Gradients out{
        Tensor(q.type(), q.rows(), q.columns()),
        Tensor(q.type(), k.rows(), k.columns()),
        Tensor(q.type(), v.rows(), v.columns())};
    AttentionBackwardArgs args{
        .forward =
            {.batch = 2,
             .length = own.length,
             .keys = own.keys,
             .heads = own.heads,
             .kv_heads = own.kv_heads,
             .head_dim = own.head_dim,
             .scale = 0.3f,
             .causal = own.causal,
             .window = own.window,
             .cap = own.cap,
             .sinks = own.sinks ? sinks.data() : nullptr,
             .type = q.type(),
             .q = view_of(q, own.length, own.heads),
             .k = view_of(k, own.keys, own.kv_heads),
             .v = view_of(v, own.keys, own.kv_heads)},
        .dout = view_of(dout, own.length, own.heads),
        .dq = out.q.data(),
        .dk = out.k.data(),
        .dv = out.v.data()};
    kernel(args);
    return out;
  }
};

TEST_P(Backward, Attention) {
  const BackwardCase cases[] = {
      {},
      {.length = 300, .keys = 300},
      {.causal = false},
      {.window = 9},
      {.cap = 2.0f},
      {.sinks = true},
      {.length = 20, .keys = 37},
      {.length = 70, .keys = 70, .heads = 3, .kv_heads = 1, .head_dim = 20},
  };
  for (DType type : kBackwardTypes) {
    for (const BackwardCase& own : cases) {
      const AttentionInput input(own, type);
      const auto actual = input.run(kernels().attention_backward);
      const auto expected = input.run(reference::attention_backward);
      // Both round their result; q, the probabilities and their slopes may be
      // rounded on the way, each a part of sums no larger than the largest.
      const auto allowed = [&](const Tensor& x) {
        return (type == DType::f32 ? 64 * 0x1p-23 : 4 * rounding(type)) *
            largest_of(x);
      };
      expect_same(actual.q, expected.q, allowed(expected.q));
      expect_same(actual.k, expected.k, allowed(expected.k));
      expect_same(actual.v, expected.v, allowed(expected.v));
    }
  }
}

// The oracle itself: the loss is sum(out * dout), moved along one element.
TEST(BackwardOracle, AttentionIsTheSlope) {
  const BackwardCase own{
      .length = 5, .keys = 7, .head_dim = 4, .cap = 3.0f, .sinks = true};
  AttentionInput input(own, DType::f32);
  const auto gradients = input.run(reference::attention_backward);
  const auto loss = [&] {
    std::vector<float> out(size_t(2 * own.length * own.heads * own.head_dim));
    reference::attention(
        {.batch = 2,
         .length = own.length,
         .keys = own.keys,
         .heads = own.heads,
         .kv_heads = own.kv_heads,
         .head_dim = own.head_dim,
         .scale = 0.3f,
         .causal = true,
         .cap = own.cap,
         .sinks = input.sinks.data(),
         .type = DType::f32,
         .q = view_of(input.q, own.length, own.heads),
         .k = view_of(input.k, own.keys, own.kv_heads),
         .v = view_of(input.v, own.keys, own.kv_heads),
         .out = out.data()});
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t width = own.heads * own.head_dim;
      sum += double(out[i]) *
          input.dout.at(int64_t(i) / width, int64_t(i) % width);
    }
    return sum;
  };
  const auto check = [&](Tensor& x, const Tensor& gradient) {
    for (int64_t j = 0; j < x.columns(); ++j) {
      const float before = x.at(3, j);
      // A power of two, so that the step itself is exact.
      const float step = 0x1p-7f;
      x.set(3, j, before + step);
      double slope = loss();
      x.set(3, j, before - step);
      slope = (slope - loss()) / (2 * double(step));
      x.set(3, j, before);
      EXPECT_NEAR(gradient.at(3, j), slope, 2e-3);
    }
  };
  check(input.q, gradients.q);
  check(input.k, gradients.k);
  check(input.v, gradients.v);
}

INSTANTIATE_KERNEL_TEST(Backward);

}  // namespace

}  // namespace pennyweight::kernels
