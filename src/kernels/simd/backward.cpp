#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/backward.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/access.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

/// Row `row` as float32: itself, or a copy in `buffer`.
const float* float_row(
    const ConstMatrix& x,
    int64_t row,
    int64_t columns,
    std::vector<float>& buffer) {
  if (x.type == DType::f32) {
    return row_of<float>(x, row);
  }
  buffer.resize(size_t(columns));
  visit_type(x.type, [&]<class T>(T*) {
    copy_row(row_of<T>(x, row), buffer.data(), columns);
  });
  return buffer.data();
}

/// Sums of f(a, b) over two rows.
template <class F>
float sum_pairs(int64_t n, const float* a, const float* b, const F& f) {
  const Floats d;
  const int64_t step = lanes();
  Vec sums[2] = {hn::Zero(d), hn::Zero(d)};
  int64_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    sums[0] = hn::Add(sums[0], f(load(a + i), load(b + i)));
    sums[1] = hn::Add(sums[1], f(load(a + i + step), load(b + i + step)));
  }
  for (; i < n; i += step) {
    const int64_t count = std::min(step, n - i);
    sums[0] =
        hn::Add(sums[0], f(load_some(a + i, count), load_some(b + i, count)));
  }
  return sum_of(hn::Add(sums[0], sums[1]));
}

struct RowBuffers {
  std::vector<float> x, dy, scaled, other;
};

void rms_norm_backward_row(
    const RmsNormBackwardArgs& args,
    const float* weight,
    int64_t row,
    RowBuffers& buffers) {
  const int64_t n = args.columns;
  const float* x = float_row(args.x, row, n, buffers.x);
  const float* dy = float_row(args.dy, row, n, buffers.dy);
  buffers.scaled.resize(size_t(n));
  float* scaled = buffers.scaled.data();
  const auto product = [](Vec a, Vec b) HWY_ATTR { return hn::Mul(a, b); };
  map_row(n, scaled, product, dy, weight);
  const float square = sum_pairs(n, x, x, product);
  const float along = sum_pairs(n, x, scaled, product);
  const double mean = double(square) / double(n) + double(args.eps);
  const Vec r = hn::Set(Floats(), float(1 / std::sqrt(mean)));
  const Vec back = hn::Set(
      Floats(), float(double(along) / double(n) / (mean * std::sqrt(mean))));
  visit_type(args.dx.type, [&]<class T>(T*) {
    map_row(
        n,
        row_of<T>(args.dx, row),
        [&](Vec dy, Vec v)
            HWY_ATTR { return hn::NegMulAdd(v, back, hn::Mul(dy, r)); },
        static_cast<const float*>(scaled),
        x);
  });
}

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  std::vector<float> weight(size_t(args.columns));
  for (int64_t i = 0; i < args.columns; ++i) {
    weight[size_t(i)] = load_at(args.weight.data, args.weight.type, i);
  }
  parallel_rows(args.rows, args.columns, [&](int64_t row) {
    thread_local RowBuffers buffers;
    rms_norm_backward_row(args, weight.data(), row, buffers);
  });
}

/// 1 / (1 + exp(-x)).
HWY_INLINE Vec sigmoid(Vec x) {
  const Vec one = hn::Set(Floats(), 1.0f);
  return hn::Div(one, hn::Add(one, exp_of(hn::Neg(x))));
}

/// All activations are x sigmoid(z) u. z is x for silu, a x + a c x^3 for gelu
/// and b x for clipped, whose x and u are clipped first. relu has a step in the
/// sigmoid's place, and none has 1.
struct Gate {
  GateKind kind;

  HWY_INLINE bool clips() const {
    return kind == GateKind::clipped;
  }
  HWY_INLINE Vec x(Vec gate) const {
    return clips() ? hn::Min(gate, limit()) : gate;
  }
  HWY_INLINE Vec up(Vec own) const {
    if (!clips()) {
      return own;
    }
    const Vec held = hn::Clamp(own, hn::Neg(limit()), limit());
    return hn::Add(held, hn::Set(Floats(), 1.0f));
  }
  HWY_INLINE Vec z(Vec x) const {
    if (clips()) {
      return hn::Mul(x, hn::Set(Floats(), kClippedSlope));
    }
    const Vec linear = hn::Set(Floats(), kGeluLinear);
    const Vec cubic = hn::Set(Floats(), kGeluLinear * kGeluCubic);
    return kind == GateKind::gelu
        ? hn::Mul(x, hn::MulAdd(hn::Mul(x, x), cubic, linear))
        : x;
  }
  /// The sigmoid of z, or what stands in its place.
  HWY_INLINE Vec share(Vec x) const {
    const Vec one = hn::Set(Floats(), 1.0f);
    if (kind == GateKind::none) {
      return one;
    }
    return kind == GateKind::relu
        ? hn::IfThenElseZero(hn::Gt(x, hn::Zero(Floats())), one)
        : sigmoid(z(x));
  }
  HWY_INLINE Vec dz(Vec x) const {
    const Vec linear = hn::Set(Floats(), kGeluLinear);
    const Vec cubic = hn::Set(Floats(), 3 * kGeluLinear * kGeluCubic);
    return kind == GateKind::gelu
        ? hn::MulAdd(hn::Mul(x, x), cubic, linear)
        : hn::Set(Floats(), clips() ? kClippedSlope : 1.0f);
  }
  /// A gradient where the activation did not clip, 0 where it did.
  HWY_INLINE Vec moved_gate(Vec gate, Vec gradient) const {
    return clips() ? hn::IfThenZeroElse(hn::Gt(gate, limit()), gradient)
                   : gradient;
  }
  HWY_INLINE Vec moved_up(Vec own, Vec gradient) const {
    return clips() ? hn::IfThenZeroElse(hn::Gt(hn::Abs(own), limit()), gradient)
                   : gradient;
  }

 private:
  HWY_INLINE Vec limit() const {
    return hn::Set(Floats(), kClippedAt);
  }
};

void gated_activation_backward_row(
    const GatedActivationBackwardArgs& args,
    int64_t row,
    RowBuffers& buffers) {
  const int64_t n = args.columns;
  const Gate gate{args.kind};
  const float* g = float_row(args.gate, row, n, buffers.x);
  const float* u = float_row(args.up, row, n, buffers.scaled);
  const float* dy = float_row(args.dy, row, n, buffers.dy);
  visit_type(args.dup.type, [&]<class T>(T*) {
    map_row(
        n,
        row_of<T>(args.dup, row),
        [&](Vec own, Vec up, Vec by_out) HWY_ATTR {
          const Vec x = gate.x(own);
          const Vec made = hn::Mul(by_out, hn::Mul(x, gate.share(x)));
          return gate.moved_up(up, made);
        },
        g,
        u,
        dy);
  });
  visit_type(args.dgate.type, [&]<class T>(T*) {
    map_row(
        n,
        row_of<T>(args.dgate, row),
        [&](Vec own, Vec up, Vec by_out) HWY_ATTR {
          const Vec x = gate.x(own);
          const Vec s = gate.share(x);
          const Vec rest = hn::Sub(hn::Set(Floats(), 1.0f), s);
          const Vec curve = hn::Mul(hn::Mul(x, s), hn::Mul(rest, gate.dz(x)));
          const Vec made =
              hn::Mul(hn::Mul(by_out, gate.up(up)), hn::Add(s, curve));
          return gate.moved_gate(own, made);
        },
        g,
        u,
        dy);
  });
}

void gated_activation_backward(const GatedActivationBackwardArgs& args) {
  parallel_rows(args.rows, args.columns, [&](int64_t row) {
    thread_local RowBuffers buffers;
    gated_activation_backward_row(args, row, buffers);
  });
}

template <class T>
void softmax_gradient_row(const simd::SoftmaxGradientArgs& args, int64_t row) {
  const int64_t n = args.columns;
  float* p = args.weights + row * n;
  const float* dp = args.dp + row * n;
  const float sum = args.sum[row];
  scale_row(p, sum > 0 ? 1 / sum : 0.0f, p, n);
  const auto product = [](Vec a, Vec b) HWY_ATTR { return hn::Mul(a, b); };
  const Vec mean = hn::Set(Floats(), sum_pairs(n, p, dp, product));
  map_row(
      n,
      row_of<T>(args.ds, row),
      [&](Vec own, Vec gradient)
          HWY_ATTR { return hn::Mul(own, hn::Sub(gradient, mean)); },
      static_cast<const float*>(p),
      dp);
  copy_row(p, row_of<T>(args.p, row), n);
}

void softmax_gradient(const simd::SoftmaxGradientArgs& args) {
  visit_type(args.type, [&]<class T>(T*) {
    for (int64_t row = 0; row < args.rows; ++row) {
      softmax_gradient_row<T>(args, row);
    }
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(rms_norm_backward, RmsNormBackwardArgs)
SIMD_EXPORT(gated_activation_backward, GatedActivationBackwardArgs)
SIMD_EXPORT(softmax_gradient, SoftmaxGradientArgs)

}  // namespace pennyweight::kernels

#endif
