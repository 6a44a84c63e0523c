#include "method/learned/lanes.h"

#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "method/learned/lanes.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include "kernels/simd/export.h"
#include "kernels/simd/vec_inl.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::learned::HWY_NAMESPACE {

using namespace kernels::HWY_NAMESPACE;

HWY_INLINE Vec all(float x) {
  return hn::Set(Floats(), x);
}

HWY_INLINE Vec code_of(Vec latent, Vec top) {
  return hn::Round(hn::Min(hn::Max(latent, hn::Zero(Floats())), top));
}

void expand_group(const ExpandGroup& g) {
  const Vec top = all(g.top);
  for (int64_t i = 0; i < g.size; i += lanes()) {
    const Vec code = code_of(load(g.latent + i), top);
    store(hn::MulAdd(code, all(g.scale), all(g.bias)), g.out + i);
  }
}

void round_group(const float* latent, int64_t size, float top, float* codes) {
  for (int64_t i = 0; i < size; i += lanes()) {
    store(code_of(load(latent + i), all(top)), codes + i);
  }
}

void learn_group(LearnGroup& g, const AdamFactors& adam) {
  const Vec top = all(g.top);
  const Vec middle = all(g.middle);
  const Vec factor = all(adam.gradient);
  const Vec scale = all(g.scale);
  const Vec stiffness = all(g.row * g.scale);
  // Half a code past the ends: there a code is still the end's, and the
  // gradient that leads back is at work.
  const Vec least = all(-0.5f);
  const Vec most = all(g.top + 0.5f);
  Vec by_scale = hn::Zero(Floats());
  Vec by_centre = hn::Zero(Floats());
  for (int64_t i = 0; i < g.size; i += lanes()) {
    const Vec dw = hn::Mul(factor, load(g.dw + i));
    const Vec latent = load(g.latent + i);
    const Vec code = code_of(latent, top);
    by_scale = hn::MulAdd(dw, hn::Sub(code, middle), by_scale);
    by_centre = hn::Add(dw, by_centre);
    const Vec rise = hn::Mul(stiffness, load(g.curvature + i));
    const Vec gradient =
        hn::Mul(scale, hn::MulAdd(rise, hn::Sub(latent, code), dw));
    Vec m = load(g.m + i);
    Vec v = load(g.v + i);
    m = hn::MulAdd(all(1 - kBeta1), hn::Sub(gradient, m), m);
    v = hn::MulAdd(all(1 - kBeta2), hn::Sub(hn::Mul(gradient, gradient), v), v);
    store(m, g.m + i);
    store(v, g.v + i);
    const Vec size = hn::Add(hn::Sqrt(hn::Mul(v, all(adam.square))), all(kEps));
    const Vec move = hn::Div(hn::Mul(m, all(adam.rate * adam.mean)), size);
    store(hn::Min(hn::Max(hn::Sub(latent, move), least), most), g.latent + i);
  }
  g.by_scale = sum_of(by_scale);
  g.by_centre = sum_of(by_centre);
}

}  // namespace pennyweight::learned::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::learned {

SIMD_FORWARD(void, expand_group, (const ExpandGroup& group), (group))
SIMD_FORWARD(
    void,
    round_group,
    (const float* latent, int64_t size, float top, float* codes),
    (latent, size, top, codes))
SIMD_FORWARD(
    void,
    learn_group,
    (LearnGroup & group, const AdamFactors& adam),
    (group, adam))

}  // namespace pennyweight::learned

#endif  // HWY_ONCE
