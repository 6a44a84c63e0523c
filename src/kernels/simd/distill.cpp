#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/distill.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>

#include "kernels/access.h"
#include "kernels/score_state.h"
#include "kernels/simd/codes_inl.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

double sum_at(const float* state, int column) {
  return double(state[column]) + double(state[column + 1]);
}

template <class T>
void kl_gradient_row(const KlGradientArgs& args, int64_t row) {
  const Floats d;
  const float* state = args.state + row * args.state_stride;
  const Vec by = hn::Set(d, 1.0f / args.temperature);
  const Vec max_s = hn::Set(d, state[kScoreMax]);
  const Vec max_r = hn::Set(d, state[kScoreRefMax]);
  const double factor = double(args.factor) / args.temperature;
  const Vec of_s = hn::Set(d, float(factor / sum_at(state, kScoreSum)));
  const Vec of_r = hn::Set(d, float(factor / sum_at(state, kScoreRefSum)));
  const Vec inverse_cap = hn::Set(d, args.cap > 0 ? 1.0f / args.cap : 0.0f);
  map_row(
      args.columns,
      row_of<T>(args.gradient, row),
      [&](Vec s, Vec r) HWY_ATTR {
        const Vec part = hn::Mul(s, inverse_cap);
        const Vec p = exp_of_negative(hn::Sub(hn::Mul(s, by), max_s));
        const Vec q = exp_of_negative(hn::Sub(hn::Mul(r, by), max_r));
        const Vec capped = hn::Sub(hn::Mul(p, of_s), hn::Mul(q, of_r));
        return hn::Mul(capped, hn::NegMulAdd(part, part, hn::Set(d, 1.0f)));
      },
      row_of<float>(args.logits, row),
      row_of<float>(args.reference, row));
}

void kl_gradient(const KlGradientArgs& args) {
  visit_type(args.gradient.type, [&]<class T>(T*) {
    parallel_rows(args.rows, args.columns, [&](int64_t row) {
      kl_gradient_row<T>(args, row);
    });
  });
}

template <int kBits>
void group_gradient_row(
    const GroupGradientArgs& args,
    const Unpacker<kBits>& unpacker,
    int64_t row) {
  const QuantizedMatrix& weight = args.weight;
  const int64_t groups = weight.columns / weight.group;
  const auto* codes = static_cast<const uint8_t*>(weight.codes) +
      row * code_bytes_per_row(weight);
  const float* dw = row_of<float>(args.dw, row);
  for (int64_t g = 0; g < groups; ++g) {
    Vec by_scale = hn::Zero(Floats());
    Vec by_bias = hn::Zero(Floats());
    for (int64_t i = 0; i < weight.group; i += 16, codes += 2 * kBits) {
      const auto fetched = unpacker.fetch(codes);
      for (int part = 0; part < unpacker.parts(); ++part, dw += lanes()) {
        const Vec own = load(dw);
        const Vec code = AffineValue()(unpacker.codes(fetched, part));
        by_scale = hn::MulAdd(own, code, by_scale);
        by_bias = hn::Add(by_bias, own);
      }
    }
    args.dscales[row * groups + g] = sum_of(by_scale);
    args.dbiases[row * groups + g] = sum_of(by_bias);
  }
}

void group_gradient(const GroupGradientArgs& args) {
  visit_codes(args.weight, [&](const auto& unpacker, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, AffineValue>) {
      parallel_rows(args.weight.rows, args.weight.columns, [&](int64_t row) {
        group_gradient_row(args, unpacker, row);
      });
    }
  });
}

void accumulate(const AccumulateArgs& args) {
  parallel_ranges(args.count, 1 << 16, [&](int64_t begin, int64_t end) {
    map_row(
        end - begin,
        args.sum + begin,
        [](Vec sum, Vec x) HWY_ATTR { return hn::Add(sum, x); },
        static_cast<const float*>(args.sum) + begin,
        args.x + begin);
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(kl_gradient, KlGradientArgs)
SIMD_EXPORT(group_gradient, GroupGradientArgs)
SIMD_EXPORT(accumulate, AccumulateArgs)

}  // namespace pennyweight::kernels

#endif
