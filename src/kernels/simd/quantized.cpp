#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/quantized.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <vector>

#include "kernels/access.h"
#include "kernels/simd/codes_inl.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

void dequantize(const DequantizeArgs& args) {
  visit_type(args.out.type, [&]<class T>(T*) {
    visit_codes(args.weight, [&](const auto& unpacker, const auto& value) {
      parallel_rows(args.rows, args.weight.columns, [&](int64_t i) {
        T* out = row_of<T>(args.out, i);
        expand_row(
            args.weight,
            args.first_row + i,
            unpacker,
            value,
            [out](int64_t column, Vec v) HWY_ATTR { store(v, out + column); });
      });
    });
  });
}

template <int kRows, int kBits, class Value>
void dot_row(
    const QuantizedMatmulArgs& args,
    const float* x,
    const Unpacker<kBits>& unpacker,
    const Value& value,
    int64_t j) {
  const int64_t k = args.weight.columns;
  Vec sums[kRows];
  for (int r = 0; r < kRows; ++r) {
    sums[r] = hn::Zero(Floats());
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

template <int kRows>
void few_rows(const QuantizedMatmulArgs& args, const float* x) {
  visit_codes(args.weight, [&](const auto& unpacker, const auto& value) {
    parallel_rows(args.weight.rows, args.weight.columns, [&](int64_t j) {
      dot_row<kRows>(args, x, unpacker, value, j);
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

SIMD_EXPORT(dequantize, DequantizeArgs)
HWY_EXPORT(quantized_few_rows);

void simd::quantized_few_rows(const QuantizedMatmulArgs& args) {
  const CountedProduct counted(
      server(), args.m, args.weight.rows, args.weight.columns, args.x.type);
  HWY_DYNAMIC_DISPATCH(quantized_few_rows)(args);
}

}  // namespace pennyweight::kernels

#endif
