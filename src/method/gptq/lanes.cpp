#include "method/gptq/lanes.h"

#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "method/gptq/lanes.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include "kernels/simd/export.h"
#include "kernels/simd/vec_inl.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::gptq::HWY_NAMESPACE {

// The loops below step through kLanes by vectors.
using namespace kernels::HWY_NAMESPACE;

/// The level nearest to x, ties to the even code; x is within the levels.
template <Levels levels>
HWY_INLINE Vec nearest_level(Vec x) {
  if constexpr (levels == Levels::affine) {
    return hn::Round(x);
  }
  // The levels around x stand `step` apart.
  Vec step = hn::Set(Floats(), 0.5f);
  if constexpr (levels == Levels::e2m1) {
    const Vec size = hn::Abs(x);
    const Vec one = hn::Set(Floats(), 1.0f);
    const Vec two = hn::Set(Floats(), 2.0f);
    step = hn::IfThenElse(hn::Ge(size, two), one, step);
    step = hn::IfThenElse(hn::Ge(size, hn::Add(two, two)), two, step);
  } else {  // e4m3: three bits below the leading one, subnormals below 2^-6
    const hn::RebindToUnsigned<Floats> words;
    const Vec power = hn::BitCast(
        Floats(), hn::And(hn::BitCast(words, x), hn::Set(words, 0x7f800000u)));
    step = hn::Mul(
        hn::Max(power, hn::Set(Floats(), 0x1p-6f)), hn::Set(Floats(), 0.125f));
  }
  return hn::Mul(hn::Round(hn::Div(x, step)), step);
}

/// The level nearest to (u - b) / s; 0 where s is 0.
template <Levels levels>
HWY_INLINE Vec nearest_code(Vec u, Vec scale, Vec bias, Vec top) {
  const Vec zero = hn::Zero(Floats());
  const Vec least = levels == Levels::affine ? zero : hn::Neg(top);
  const auto flat = hn::Eq(scale, zero);
  const Vec safe = hn::IfThenElse(flat, hn::Set(Floats(), 1.0f), scale);
  const Vec code = hn::Div(hn::Sub(u, bias), safe);
  const Vec kept = hn::Min(hn::Max(code, least), top);
  return hn::IfThenZeroElse(flat, nearest_level<levels>(kept));
}

/// y += a * x on all lanes.
HWY_INLINE void add_scaled(float a, const float* x, float* y) {
  const Vec factor = hn::Set(Floats(), a);
  for (int64_t l = 0; l < kLanes; l += lanes()) {
    store(hn::MulAdd(factor, load(x + l), load(y + l)), y + l);
  }
}

template <Levels levels>
void round_levels(const RoundBlock& b) {
  const Vec top = hn::Set(Floats(), b.grids.top);
  for (int64_t i = 0; i < b.columns; ++i) {
    const float* scales = b.grids.scales + b.groups[i] * kLanes;
    const float* biases = b.grids.biases + b.groups[i] * kLanes;
    const int64_t at = i * kLanes;
    for (int64_t l = 0; l < kLanes; l += lanes()) {
      const Vec scale = load(scales + l);
      const Vec bias = load(biases + l);
      const Vec code =
          nearest_code<levels>(load(b.moved + at + l), scale, bias, top);
      store(code, b.codes + at + l);
      const Vec value = hn::MulAdd(code, scale, bias);
      store(hn::Sub(load(b.target + at + l), value), b.error + at + l);
    }
    for (int64_t k = i + 1; k < b.columns; ++k) {
      add_scaled(
          b.feedback[k * b.feedback_stride + i],
          b.error + at,
          b.moved + k * kLanes);
    }
  }
}

template <Levels levels>
int64_t descend_levels(const DescendBlock& b) {
  const Vec top = hn::Set(Floats(), b.grids.top);
  int64_t changed = 0;
  for (int64_t i = 0; i < b.columns; ++i) {
    const float* row = b.hessian + i * b.hessian_stride;
    const float* scales = b.grids.scales + b.groups[i] * kLanes;
    const float* biases = b.grids.biases + b.groups[i] * kLanes;
    const int64_t at = i * kLanes;
    const Vec inverse = hn::Set(Floats(), 1.0f / row[i]);
    int64_t moved = 0;
    for (int64_t l = 0; l < kLanes; l += lanes()) {
      const Vec scale = load(scales + l);
      const Vec bias = load(biases + l);
      const Vec old = load(b.codes + at + l);
      const Vec value = hn::MulAdd(old, scale, bias);
      const Vec wish = hn::MulAdd(load(b.gradient + at + l), inverse, value);
      const Vec code = nearest_code<levels>(wish, scale, bias, top);
      store(code, b.codes + at + l);
      store(hn::Mul(hn::Sub(old, code), scale), b.moves + at + l);
      moved += int64_t(hn::CountTrue(Floats(), hn::Ne(old, code)));
    }
    changed += moved;
    if (moved > 0) {
      for (int64_t k = i + 1; k < b.columns; ++k) {
        add_scaled(row[k], b.moves + at, b.gradient + k * kLanes);
      }
    }
  }
  return changed;
}

template <Levels levels>
GridSums sum_levels(const GroupWeights& weights, const Grids& grid) {
  GridSums sums;
  const Vec most = hn::Set(Floats(), grid.top);
  for (int64_t l = 0; l < kLanes; l += lanes()) {
    const Vec scale = load(grid.scales + l);
    const Vec bias = load(grid.biases + l);
    Vec loss = hn::Zero(Floats());
    Vec qq = loss, q = loss, qw = loss, w = loss;
    for (int64_t i = 0; i < weights.size; ++i) {
      const Vec h = hn::Set(Floats(), weights.importance[i]);
      const Vec x = load(weights.values + i * kLanes + l);
      const Vec code = nearest_code<levels>(x, scale, bias, most);
      const Vec error = hn::Sub(x, hn::MulAdd(code, scale, bias));
      const Vec weighted = hn::Mul(h, code);
      loss = hn::MulAdd(hn::Mul(h, error), error, loss);
      qq = hn::MulAdd(weighted, code, qq);
      q = hn::Add(q, weighted);
      qw = hn::MulAdd(weighted, x, qw);
      w = hn::MulAdd(h, x, w);
    }
    store(loss, sums.loss + l);
    store(qq, sums.qq + l);
    store(q, sums.q + l);
    store(qw, sums.qw + l);
    store(w, sums.w + l);
  }
  return sums;
}

/// Calls one(levels) with the levels as a constant's type.
template <class One>
auto for_levels(Levels levels, const One& one) {
  switch (levels) {
    case Levels::e2m1:
      return one.template operator()<Levels::e2m1>();
    case Levels::e4m3:
      return one.template operator()<Levels::e4m3>();
    default:
      return one.template operator()<Levels::affine>();
  }
}

void round_block(const RoundBlock& block) {
  for_levels(block.grids.levels, [&]<Levels kLevels>() {
    round_levels<kLevels>(block);
  });
}

int64_t descend_block(const DescendBlock& block) {
  return for_levels(block.grids.levels, [&]<Levels kLevels>() {
    return descend_levels<kLevels>(block);
  });
}

GridSums grid_sums(const GroupWeights& weights, const Grids& grid) {
  return for_levels(grid.levels, [&]<Levels kLevels>() {
    return sum_levels<kLevels>(weights, grid);
  });
}

void lane_sums(const float* x, int64_t count, float* out) {
  for (int64_t l = 0; l < kLanes; l += lanes()) {
    Vec sum = hn::Zero(Floats());
    for (int64_t i = 0; i < count; ++i) {
      sum = hn::Add(sum, load(x + i * kLanes + l));
    }
    store(sum, out + l);
  }
}

void lane_dots(const float* x, const float* y, int64_t count, float* out) {
  for (int64_t l = 0; l < kLanes; l += lanes()) {
    Vec sum = hn::Zero(Floats());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = i * kLanes + l;
      sum = hn::MulAdd(load(x + at), load(y + at), sum);
    }
    store(sum, out + l);
  }
}

void solve_block(
    const float* feedback,
    int64_t stride,
    int64_t columns,
    bool transposed,
    float* x) {
  if (transposed) {
    for (int64_t i = columns - 1; i > 0; --i) {
      for (int64_t j = 0; j < i; ++j) {
        add_scaled(-feedback[i * stride + j], x + i * kLanes, x + j * kLanes);
      }
    }
    return;
  }
  for (int64_t j = 0; j + 1 < columns; ++j) {
    for (int64_t i = j + 1; i < columns; ++i) {
      add_scaled(-feedback[i * stride + j], x + j * kLanes, x + i * kLanes);
    }
  }
}

}  // namespace pennyweight::gptq::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::gptq {

SIMD_FORWARD(void, round_block, (const RoundBlock& block), (block))
SIMD_FORWARD(int64_t, descend_block, (const DescendBlock& block), (block))
SIMD_FORWARD(
    GridSums,
    grid_sums,
    (const GroupWeights& weights, const Grids& grid),
    (weights, grid))
SIMD_FORWARD(
    void,
    lane_sums,
    (const float* x, int64_t count, float* out),
    (x, count, out))
SIMD_FORWARD(
    void,
    lane_dots,
    (const float* x, const float* y, int64_t count, float* out),
    (x, y, count, out))
SIMD_FORWARD(
    void,
    solve_block,
    (const float* feedback,
     int64_t stride,
     int64_t columns,
     bool transposed,
     float* x),
    (feedback, stride, columns, transposed, x))

}  // namespace pennyweight::gptq

#endif  // HWY_ONCE
