#include <vector>

#include "kernels/access.h"
#include "kernels/product_log.h"
#include "kernels/quant_codes.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

ProductServer& server() {
  static ProductServer& own = product_server("reference");
  return own;
}

}  // namespace

void matmul(const MatmulArgs& args) {
  const CountedProduct counted(server(), args.m, args.n, args.k, args.x.type);
  for (int64_t i = 0; i < args.m; ++i) {
    for (int64_t j = 0; j < args.n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < args.k; ++l) {
        const float weight = args.weight_by_depth ? load_at(args.weight, l, j)
                                                  : load_at(args.weight, j, l);
        sum += double(load_at(args.x, i, l)) * weight;
      }
      if (args.bias.data) {
        sum += load_at(args.bias.data, args.bias.type, j);
      }
      if (args.residual.data) {
        sum += load_at(args.residual, i, j);
      }
      store_at(args.out, i, j, float(sum));
    }
  }
}

void gram(const GramArgs& args) {
  int64_t at = 0;
  for (const auto& part : args.parts) {
    const CountedProduct counted(
        server(), part.m, args.n, args.rows, part.a.type);
    for (int64_t i = 0; i < part.m; ++i) {
      for (int64_t j = 0; j < args.n; ++j) {
        double sum = load_at(
            args.out.data, args.out.type, (at + i) * args.out.stride + j);
        for (int64_t row = 0; row < args.rows; ++row) {
          sum += double(load_at(part.a, row, i)) * load_at(args.b, row, j);
        }
        store_at(args.out, at + i, j, float(sum));
      }
    }
    at += part.m;
  }
}

void dequantize(const DequantizeArgs& args) {
  const auto& weight = args.weight;
  const float* values = code_values(weight.mode);
  const int64_t groups = weight.columns / weight.group;
  for (int64_t i = 0; i < args.rows; ++i) {
    const int64_t row = args.first_row + i;
    const auto* codes = static_cast<const uint8_t*>(weight.codes) +
        row * code_bytes_per_row(weight);
    for (int64_t j = 0; j < weight.columns; ++j) {
      const auto [scale, bias] =
          group_scale(weight, row * groups + j / weight.group);
      const uint32_t code = code_at(codes, weight.bits, j);
      const float value = values ? values[code] * scale
                                 : float(double(scale) * code + double(bias));
      store_at(args.out, i, j, value);
    }
  }
}

void quantized_matmul(const QuantizedMatmulArgs& args) {
  const auto& weight = args.weight;
  std::vector<float> dense(size_t(weight.rows * weight.columns));
  dequantize(
      {weight, 0, weight.rows, {dense.data(), DType::f32, weight.columns}});
  matmul(
      {args.m,
       weight.rows,
       weight.columns,
       args.x,
       {dense.data(), DType::f32, weight.columns},
       args.bias,
       args.residual,
       args.out,
       false});
}

}  // namespace pennyweight::kernels::reference
