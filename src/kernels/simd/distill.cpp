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
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

double sum_at(const float* state, int column) {
  return double(state[column]) + double(state[column + 1]);
}

template <class T>
void kl_slopes_row(const KlSlopesArgs& args, int64_t row) {
  const Floats d;
  const auto* logits =
      static_cast<const float*>(args.logits.data) + row * args.logits.stride;
  const auto* reference = static_cast<const float*>(args.reference.data) +
      row * args.reference.stride;
  const float* state = args.state + row * args.state_stride;
  auto* out = static_cast<T*>(args.slopes.data) + row * args.slopes.stride;
  const Vec by = hn::Set(d, 1.0f / args.temperature);
  const Vec top_s = hn::Set(d, state[kScoreMax]);
  const Vec top_r = hn::Set(d, state[kScoreRefMax]);
  const double slope = double(args.factor) / args.temperature;
  const Vec of_s = hn::Set(d, float(slope / sum_at(state, kScoreSum)));
  const Vec of_r = hn::Set(d, float(slope / sum_at(state, kScoreRefSum)));
  const Vec inverse_cap = hn::Set(d, args.cap > 0 ? 1.0f / args.cap : 0.0f);
  map_row(
      args.columns,
      out,
      [&](Vec s, Vec r) HWY_ATTR {
        const Vec part = hn::Mul(s, inverse_cap);
        const Vec p = exp_of_negative(hn::Sub(hn::Mul(s, by), top_s));
        const Vec q = exp_of_negative(hn::Sub(hn::Mul(r, by), top_r));
        const Vec slope_at = hn::Sub(hn::Mul(p, of_s), hn::Mul(q, of_r));
        return hn::Mul(slope_at, hn::NegMulAdd(part, part, hn::Set(d, 1.0f)));
      },
      logits,
      reference);
}

void kl_slopes(const KlSlopesArgs& args) {
  visit_type(args.slopes.type, [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    parallel_ranges(
        args.rows, 1 + 16384 / args.columns, [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            kl_slopes_row<T>(args, row);
          }
        });
  });
}

template <int kBits>
void group_gradient_rows(
    const GroupGradientArgs& args,
    const Unpacker<kBits>& unpacker,
    int64_t begin,
    int64_t end) {
  const QuantizedMatrix& weight = args.weight;
  const int64_t groups = weight.columns / weight.group;
  const int parts = unpacker.parts();
  for (int64_t row = begin; row < end; ++row) {
    const auto* codes = static_cast<const uint8_t*>(weight.codes) +
        row * code_bytes_per_row(weight);
    const auto* dw =
        static_cast<const float*>(args.dw.data) + row * args.dw.stride;
    for (int64_t g = 0; g < groups; ++g) {
      Vec by_scale = hn::Zero(Floats());
      Vec by_bias = hn::Zero(Floats());
      for (int64_t i = 0; i < weight.group; i += 16, codes += 2 * kBits) {
        const auto fetched = unpacker.fetch(codes);
        for (int part = 0; part < parts; ++part, dw += lanes()) {
          const Vec slope = load(dw);
          const Vec code = AffineValue()(unpacker.codes(fetched, part));
          by_scale = hn::MulAdd(slope, code, by_scale);
          by_bias = hn::Add(by_bias, slope);
        }
      }
      args.dscales[row * groups + g] = sum_of(by_scale);
      args.dbiases[row * groups + g] = sum_of(by_bias);
    }
  }
}

void group_gradient(const GroupGradientArgs& args) {
  const int64_t grain = 1 + 16384 / std::max<int64_t>(1, args.weight.columns);
  visit_codes(args.weight, [&](const auto& unpacker, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, AffineValue>) {
      parallel_ranges(args.weight.rows, grain, [&](int64_t begin, int64_t end) {
        group_gradient_rows(args, unpacker, begin, end);
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

HWY_EXPORT(kl_slopes);
HWY_EXPORT(group_gradient);
HWY_EXPORT(accumulate);

namespace simd {

void kl_slopes(const KlSlopesArgs& args) {
  HWY_DYNAMIC_DISPATCH(kl_slopes)(args);
}

void group_gradient(const GroupGradientArgs& args) {
  HWY_DYNAMIC_DISPATCH(group_gradient)(args);
}

void accumulate(const AccumulateArgs& args) {
  HWY_DYNAMIC_DISPATCH(accumulate)(args);
}

}  // namespace simd

}  // namespace pennyweight::kernels

#endif
