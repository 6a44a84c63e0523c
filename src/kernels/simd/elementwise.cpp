#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/elementwise.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <cmath>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

template <class T, class U>
void convert_row(const T* x, U* out, int64_t n) {
  const Floats d;
  map_row(
      n,
      out,
      [&](Vec v) HWY_ATTR {
        // A NaN becomes one that survives any rounding of its bits.
        return hn::IfThenElse(
            hn::IsNaN(v), hn::BitCast(d, hn::Set(Words(), 0x7fc00000u)), v);
      },
      x);
}

void convert(const simd::ConvertArgs& args) {
  visit_types(args.x.type, args.out.type, [&]<class T, class U>(T*, U*) {
    for (int64_t i = 0; i < args.rows; ++i) {
      convert_row(row_of<T>(args.x, i), row_of<U>(args.out, i), args.columns);
    }
  });
}

template <class T>
float sum_of_squares(const T* x, int64_t n) {
  const Floats d;
  const int64_t step = lanes();
  Vec sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  int64_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    for (int part = 0; part < 4; ++part) {
      const Vec v = load(x + i + part * step);
      sums[part] = hn::MulAdd(v, v, sums[part]);
    }
  }
  for (; i < n; i += step) {
    const Vec v = i + step <= n ? load(x + i) : load_some(x + i, n - i);
    sums[0] = hn::MulAdd(v, v, sums[0]);
  }
  return sum_of(hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3])));
}

template <class T, class U>
void rms_norm_row(
    const T* x,
    const float* weight,
    U* out,
    int64_t n,
    float eps) {
  const float mean = sum_of_squares(x, n) / float(n);
  const Vec factor = hn::Set(Floats(), 1.0f / std::sqrt(mean + eps));
  map_row(
      n,
      out,
      [&](Vec v, Vec w) HWY_ATTR { return hn::Mul(hn::Mul(v, factor), w); },
      x,
      weight);
}

void rms_norm(const RmsNormArgs& args) {
  const int64_t count = args.weights * args.columns;
  std::vector<float> weight(static_cast<size_t>(count));
  convert(
      {1,
       count,
       {args.weight.data, args.weight.type, count},
       {weight.data(), DType::f32, count}});
  visit_types(args.x.type, args.out.type, [&]<class T, class U>(T*, U*) {
    parallel_rows(args.rows, args.columns, [&](int64_t i) {
      rms_norm_row(
          row_of<T>(args.x, i),
          weight.data() + i % args.weights * args.columns,
          row_of<U>(args.out, i),
          args.columns,
          args.eps);
    });
  });
}

template <GateKind kKind, class T, class U>
void gated_activation_row(const T* gate, const T* up, U* out, int64_t n) {
  const Vec one = hn::Set(Floats(), 1.0f);
  map_row(
      n,
      out,
      [&](Vec g, Vec u) HWY_ATTR {
        if constexpr (kKind == GateKind::none) {
          return hn::Mul(g, u);
        }
        if constexpr (kKind == GateKind::relu) {
          const Vec zero = hn::Zero(Floats());
          // Compared in this order, a NaN stays one.
          return hn::Mul(hn::IfThenElse(hn::Lt(g, zero), zero, g), u);
        }
        Vec z = g;
        if constexpr (kKind == GateKind::clipped) {
          const Vec limit = hn::Set(Floats(), kClippedAt);
          // Compared in this order, a NaN stays one.
          g = hn::IfThenElse(hn::Gt(g, limit), limit, g);
          u = hn::IfThenElse(hn::Gt(u, limit), limit, u);
          u = hn::IfThenElse(hn::Lt(u, hn::Neg(limit)), hn::Neg(limit), u);
          u = hn::Add(u, one);
          z = hn::Mul(hn::Set(Floats(), kClippedSlope), g);
        } else if constexpr (kKind == GateKind::gelu) {
          const Vec cubic = hn::Set(Floats(), kGeluCubic);
          const Vec inner = hn::MulAdd(hn::Mul(cubic, hn::Mul(g, g)), g, g);
          z = hn::Mul(hn::Set(Floats(), kGeluLinear), inner);
        }
        const Vec bottom = hn::Add(one, exp_of(hn::Neg(z)));
        return hn::Mul(hn::Mul(g, reciprocal(bottom)), u);
      },
      gate,
      up);
}

void gated_activation(const GatedActivationArgs& args) {
  visit_types(args.gate.type, args.out.type, [&]<class T, class U>(T*, U*) {
    constexpr decltype(&gated_activation_row<GateKind::silu, T, U>) kRows[] = {
        gated_activation_row<GateKind::silu, T, U>,
        gated_activation_row<GateKind::gelu, T, U>,
        gated_activation_row<GateKind::clipped, T, U>,
        gated_activation_row<GateKind::relu, T, U>,
        gated_activation_row<GateKind::none, T, U>};
    const auto run = kRows[size_t(args.kind)];
    parallel_rows(args.rows, args.columns, [&](int64_t i) {
      run(row_of<T>(args.gate, i),
          row_of<T>(args.up, i),
          row_of<U>(args.out, i),
          args.columns);
    });
  });
}

void add_magnitudes(const AddMagnitudesArgs& args) {
  // A strip of columns stays in the nearest cache for all rows.
  constexpr int64_t kStrip = 128;
  const int64_t strips = (args.columns + kStrip - 1) / kStrip;
  visit_type(args.x.type, [&]<class T>(T*) {
    parallel_tasks(strips, [&](int64_t strip) {
      const int64_t first = strip * kStrip;
      const int64_t count = std::min(kStrip, args.columns - first);
      float* sums = args.out + first;
      for (int64_t i = 0; i < args.rows; ++i) {
        map_row(
            count,
            sums,
            [](Vec sum, Vec x) HWY_ATTR { return hn::Add(sum, hn::Abs(x)); },
            static_cast<const float*>(sums),
            row_of<T>(args.x, i) + first);
      }
    });
  });
}

void subtract(const SubtractArgs& args) {
  visit_type(args.out_type, [&]<class T>(T*) {
    parallel_ranges(args.count, row_grain(1), [&](int64_t begin, int64_t end) {
      map_row(
          end - begin,
          static_cast<T*>(args.out) + begin,
          [](Vec a, Vec b) HWY_ATTR { return hn::Sub(a, b); },
          args.a + begin,
          args.b + begin);
    });
  });
}

/// The sum of exp(x - max), and the terms to `out` where that is not null.
template <class T>
double exp_row(const T* x, float max, float* out, int64_t n) {
  constexpr int64_t kChunk = 1024;  // terms that float32 adds up well
  double total = 0;
  for (int64_t from = 0; from < n; from += kChunk) {
    total += exp_terms(
        x + from, max, out ? out + from : nullptr, std::min(kChunk, n - from));
  }
  return total;
}

void softmax(const SoftmaxArgs& args) {
  const int64_t n = args.columns;
  visit_types(args.x.type, args.out.type, [&]<class T, class U>(T*, U*) {
    parallel_rows(args.rows, n, [&](int64_t i) {
      thread_local Scratch scratch;
      float* terms = scratch.get<float>(n);
      const T* x = row_of<T>(args.x, i);
      const double sum = exp_row(x, largest(x, n), terms, n);
      scale_row(terms, float(1.0 / sum), row_of<U>(args.out, i), n);
    });
  });
}

void logsumexp(const LogSumExpArgs& args) {
  visit_type(args.x.type, [&]<class T>(T*) {
    parallel_rows(args.rows, args.columns, [&](int64_t i) {
      const T* x = row_of<T>(args.x, i);
      const float max = largest(x, args.columns);
      const double sum =
          std::isinf(max) ? 1.0 : exp_row<T>(x, max, nullptr, args.columns);
      args.out[i] = float(double(max) + std::log(sum));
    });
  });
}

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(convert, ConvertArgs)
SIMD_EXPORT(rms_norm, RmsNormArgs)
SIMD_EXPORT(add_magnitudes, AddMagnitudesArgs)
SIMD_EXPORT(subtract, SubtractArgs)
SIMD_EXPORT(gated_activation, GatedActivationArgs)
SIMD_EXPORT(softmax, SoftmaxArgs)
SIMD_EXPORT(logsumexp, LogSumExpArgs)
HWY_EXPORT(target_name);

namespace {

/// PENNYWEIGHT_SIMD=avx2 takes AVX2 on machines that have more: tests run on
/// it, and compare bytes that are to be the same on any machine. It is read
/// before the first kernel runs.
[[maybe_unused]] const bool limited = [] {
  const char* text = std::getenv("PENNYWEIGHT_SIMD");
  if (text == nullptr || std::string_view(text) != "avx2") {
    return false;
  }
  hwy::DisableTargets(HWY_AVX2 - 1);  // the lower its bit, the more it has
  return true;
}();

}  // namespace

namespace simd {

bool available() {
#if defined(__x86_64__)
  // Asked once: on a virtual machine the CPUID instruction takes long.
  static const bool any = [] {
    const auto targets = hwy::SupportedTargets();
    // That call has made the processor's best the choice, though `limited` may
    // have excluded it: its result leaves out what is excluded.
    hwy::GetChosenTarget().Update(targets);
    return (targets & HWY_TARGETS) != 0;
  }();
  return any;
#else
  return true;
#endif
}

std::string_view target_name() {
  return HWY_DYNAMIC_DISPATCH(target_name)();
}

}  // namespace simd

}  // namespace pennyweight::kernels

#endif
