#include <algorithm>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kPanelBytes = 4 << 20;
constexpr int64_t kPanelStep = 64;  // rows of a panel are a multiple of it

}  // namespace

void quantized_matmul_by_panels(
    const QuantizedMatmulArgs& args,
    ProductFn product,
    DType panel_type) {
  thread_local Scratch scratch;
  const auto& weight = args.weight;
  const int64_t k = weight.columns;
  const int64_t fitting = kPanelBytes / (k * int64_t(size_of(panel_type)));
  const int64_t most = std::max(kPanelStep, fitting / kPanelStep * kPanelStep);
  for (int64_t from = 0; from < weight.rows; from += most) {
    const int64_t rows = std::min(most, weight.rows - from);
    const Matrix panel{
        scratch.get<char>(rows * k * int64_t(size_of(panel_type))),
        panel_type,
        k};
    simd::dequantize({weight, from, rows, panel});
    ConstVector bias = args.bias;
    if (bias.data) {
      bias.data = advance(bias.data, bias.type, from);
    }
    product(
        {args.m,
         rows,
         k,
         args.x,
         as_const(panel),
         bias,
         from_column(args.residual, from),
         from_column(args.out, from),
         false});
  }
}

}  // namespace pennyweight::kernels
