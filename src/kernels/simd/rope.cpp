#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/rope.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <vector>

#include "kernels/access.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

using Doubles = hn::CappedTag<double, 8>;

struct SinCos {
  hn::Vec<Doubles> sine, cosine;
};

/// Sine and cosine in float64, well below float32's rounding for |x| < 2^30:
/// x = n pi/2 + r with pi/2 in two parts, then Taylor series on |r| <= pi/4.
HWY_INLINE SinCos sin_cos(hn::Vec<Doubles> x) {
  const Doubles d;
  const auto c = [d](double value) HWY_ATTR { return hn::Set(d, value); };
  const auto n = hn::Round(hn::Mul(x, c(0.63661977236758134308)));
  auto r = hn::NegMulAdd(n, c(1.57079632679489655800), x);
  r = hn::NegMulAdd(n, c(6.12323399573676603587e-17), r);
  const auto r2 = hn::Mul(r, r);
  auto s = c(-1.0 / 39916800);
  s = hn::MulAdd(s, r2, c(1.0 / 362880));
  s = hn::MulAdd(s, r2, c(-1.0 / 5040));
  s = hn::MulAdd(s, r2, c(1.0 / 120));
  s = hn::MulAdd(s, r2, c(-1.0 / 6));
  s = hn::MulAdd(hn::Mul(s, r2), r, r);
  auto k = c(1.0 / 479001600);
  k = hn::MulAdd(k, r2, c(-1.0 / 3628800));
  k = hn::MulAdd(k, r2, c(1.0 / 40320));
  k = hn::MulAdd(k, r2, c(-1.0 / 720));
  k = hn::MulAdd(k, r2, c(1.0 / 24));
  k = hn::MulAdd(k, r2, c(-0.5));
  k = hn::MulAdd(k, r2, c(1.0));
  // By the quadrant n mod 4, sine and cosine change places and signs.
  const auto quarter =
      hn::NegMulAdd(hn::Floor(hn::Mul(n, c(0.25))), c(4.0), n);  // 0, 1, 2 or 3
  const auto half = hn::Ge(quarter, c(1.5));
  const auto odd = hn::Eq(
      hn::NegMulAdd(hn::IfThenElse(half, c(1.0), c(0.0)), c(2.0), quarter),
      c(1.0));
  const auto sine = hn::IfThenElse(odd, k, s);
  const auto cosine = hn::IfThenElse(odd, hn::Neg(s), k);
  return {
      hn::IfThenElse(half, hn::Neg(sine), sine),
      hn::IfThenElse(half, hn::Neg(cosine), cosine)};
}

/// cosines and sines of position * frequency, times `scale`, [count].
void fill_angles(
    float position,
    const float* frequencies,
    int64_t count,
    float scale,
    float* cosines,
    float* sines) {
  const Doubles d;
  const hn::Rebind<float, Doubles> f;
  const int64_t step = int64_t(hn::Lanes(d));
  for (int64_t i = 0; i < count; i += step) {
    HWY_ALIGN float angles[8] = {};
    const int64_t n = std::min(step, count - i);
    for (int64_t j = 0; j < n; ++j) {
      angles[j] = position * frequencies[i + j];
    }
    const auto both = sin_cos(hn::PromoteTo(d, hn::Load(f, angles)));
    const auto factor = hn::Set(d, double(scale));
    HWY_ALIGN float out[8];
    hn::Store(hn::DemoteTo(f, hn::Mul(both.cosine, factor)), f, out);
    std::memcpy(cosines + i, out, size_t(n) * sizeof(float));
    hn::Store(hn::DemoteTo(f, hn::Mul(both.sine, factor)), f, out);
    std::memcpy(sines + i, out, size_t(n) * sizeof(float));
  }
}

/// Rotates the pairs (i, i + half).
template <class T>
void rotate_halves(
    const T* x,
    T* out,
    const float* cosines,
    const float* sines,
    int64_t half) {
  for_vectors(
      half,
      [&](int64_t i) HWY_ATTR {
        const Vec a = load(x + i), b = load(x + half + i);
        const Vec c = load(cosines + i), s = load(sines + i);
        store(hn::NegMulAdd(b, s, hn::Mul(a, c)), out + i);
        store(hn::MulAdd(a, s, hn::Mul(b, c)), out + half + i);
      },
      [&](int64_t i, int64_t n) HWY_ATTR {
        const Vec a = load_some(x + i, n), b = load_some(x + half + i, n);
        const Vec c = load_some(cosines + i, n), s = load_some(sines + i, n);
        store_some(hn::NegMulAdd(b, s, hn::Mul(a, c)), out + i, n);
        store_some(hn::MulAdd(a, s, hn::Mul(b, c)), out + half + i, n);
      });
}

/// Rotates the pairs (2i, 2i + 1). Each cosine and sine stands twice, and the
/// first of both sines has its sign changed.
template <class T>
void rotate_neighbours(
    const T* x,
    T* out,
    const float* cosines,
    const float* sines,
    int64_t dims) {
  const auto turn = [](Vec v, Vec c, Vec s) HWY_ATTR {
    return hn::MulAdd(hn::Shuffle2301(v), s, hn::Mul(v, c));
  };
  for_vectors(
      dims,
      [&](int64_t i) HWY_ATTR {
        store(turn(load(x + i), load(cosines + i), load(sines + i)), out + i);
      },
      [&](int64_t i, int64_t n) HWY_ATTR {
        const Vec c = load_some(cosines + i, n), s = load_some(sines + i, n);
        store_some(turn(load_some(x + i, n), c, s), out + i, n);
      });
}

/// Cosines and sines of one position, in the order that the rotation wants.
struct AngleRow {
  std::vector<float> cosines, sines, plain_cosines, plain_sines;

  explicit AngleRow(int64_t dims)
      : cosines(size_t(dims)),
        sines(size_t(dims)),
        plain_cosines(size_t(dims / 2)),
        plain_sines(size_t(dims / 2)) {}

  void fill(const RopeArgs& args, int64_t position) {
    const int64_t half = args.dims / 2;
    const bool pairs = args.traditional;
    fill_angles(
        float(position),
        args.frequencies,
        half,
        args.input_scale,
        pairs ? plain_cosines.data() : cosines.data(),
        pairs ? plain_sines.data() : sines.data());
    for (int64_t i = 0; pairs && i < half; ++i) {
      cosines[2 * i] = cosines[2 * i + 1] = plain_cosines[i];
      sines[2 * i] = -plain_sines[i];
      sines[2 * i + 1] = plain_sines[i];
    }
  }
};

template <class T>
void rope_position(const RopeArgs& args, int64_t t, const AngleRow& angles) {
  for (int64_t b = 0; b < args.batch; ++b) {
    const T* row = static_cast<const T*>(args.x) + b * args.x_batch_stride +
        t * args.x_row_stride;
    T* to = static_cast<T*>(args.out) +
        (b * args.length + t) * args.heads * args.head_dim;
    for (int64_t h = 0; h < args.heads; ++h, to += args.head_dim) {
      const T* x = row + h * args.x_head_stride;
      const float* c = angles.cosines.data();
      const float* s = angles.sines.data();
      if (args.traditional) {
        rotate_neighbours(x, to, c, s, args.dims);
      } else {
        rotate_halves(x, to, c, s, args.dims / 2);
      }
      if (args.dims < args.head_dim) {
        std::memcpy(
            to + args.dims,
            x + args.dims,
            size_t(args.head_dim - args.dims) * sizeof(T));
      }
    }
  }
}

void rope(const RopeArgs& args) {
  const int64_t row = args.batch * args.heads * args.head_dim;
  visit_type(args.type, [&]<class T>(T*) {
    parallel_ranges(
        args.length, row_grain(row), [&](int64_t begin, int64_t end) {
          AngleRow angles(args.dims);
          for (int64_t t = begin; t < end; ++t) {
            angles.fill(args, args.offset + t);
            rope_position<T>(args, t, angles);
          }
        });
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(rope, RopeArgs)

}  // namespace pennyweight::kernels

#endif
