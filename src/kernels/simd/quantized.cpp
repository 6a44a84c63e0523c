#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/quantized.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <vector>

#include "kernels/access.h"
#include "kernels/simd/codes_inl.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

template <class T, int kBits, class Value>
void dequantize_rows(
    const DequantizeArgs& args,
    const Unpacker<kBits>& unpacker,
    const Value& value,
    int64_t begin,
    int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    T* out = static_cast<T*>(args.out.data) + i * args.out.stride;
    expand_row(
        args.weight,
        args.first_row + i,
        unpacker,
        value,
        [&](int64_t column, Vec v) HWY_ATTR { store(v, out + column); });
  }
}

void dequantize(const DequantizeArgs& args) {
  const int64_t grain = 1 + 16384 / std::max<int64_t>(1, args.weight.columns);
  visit_type(args.out.type, [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    visit_codes(args.weight, [&](const auto& unpacker, const auto& value) {
      parallel_ranges(args.rows, grain, [&](int64_t begin, int64_t end) {
        dequantize_rows<T>(args, unpacker, value, begin, end);
      });
    });
  });
}

template <int kRows, int kBits, class Value>
void dot_rows(
    const QuantizedMatmulArgs& args,
    const float* x,
    const Unpacker<kBits>& unpacker,
    const Value& value,
    int64_t begin,
    int64_t end) {
  const Floats d;
  const int64_t k = args.weight.columns;
  for (int64_t j = begin; j < end; ++j) {
    Vec sums[kRows];
    for (int r = 0; r < kRows; ++r) {
      sums[r] = hn::Zero(d);
    }
    expand_row(
        args.weight, j, unpacker, value, [&](int64_t column, Vec w) HWY_ATTR {
          for (int r = 0; r < kRows; ++r) {
            sums[r] = hn::MulAdd(w, load(x + r * k + column), sums[r]);
          }
        });
    const float bias =
        args.bias.data ? load_at(args.bias.data, args.bias.type, j) : 0.0f;
    for (int r = 0; r < kRows; ++r) {
      float sum = sum_of(sums[r]) + bias;
      if (args.residual.data) {
        sum += load_at(args.residual, r, j);
      }
      store_at(args.out, r, j, sum);
    }
  }
}

template <int kRows>
void few_rows(const QuantizedMatmulArgs& args, const float* x) {
  const int64_t grain = 1 + 16384 / args.weight.columns;
  visit_codes(args.weight, [&](const auto& unpacker, const auto& value) {
    parallel_ranges(args.weight.rows, grain, [&](int64_t begin, int64_t end) {
      dot_rows<kRows>(args, x, unpacker, value, begin, end);
    });
  });
}

void quantized_few_rows(const QuantizedMatmulArgs& args) {
  const int64_t k = args.weight.columns;
  std::vector<float> x(size_t(args.m * k));
  simd::convert({args.m, k, args.x, {x.data(), DType::f32, k}});
  switch (args.m) {
    case 0:
      return;
    case 1:
      return few_rows<1>(args, x.data());
    case 2:
      return few_rows<2>(args, x.data());
    case 3:
      return few_rows<3>(args, x.data());
    default:
      return few_rows<4>(args, x.data());
  }
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

HWY_EXPORT(dequantize);
HWY_EXPORT(quantized_few_rows);

namespace simd {

void dequantize(const DequantizeArgs& args) {
  HWY_DYNAMIC_DISPATCH(dequantize)(args);
}

void quantized_few_rows(const QuantizedMatmulArgs& args) {
  const CountedProduct counted(
      server(), args.m, args.weight.rows, args.weight.columns, args.x.type);
  HWY_DYNAMIC_DISPATCH(quantized_few_rows)(args);
}

}  // namespace simd

}  // namespace pennyweight::kernels

#endif
