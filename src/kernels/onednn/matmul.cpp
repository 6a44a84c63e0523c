#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include <algorithm>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/access.h"
#include "kernels/onednn/onednn.h"
#include "kernels/onednn/product.h"
#include "kernels/onednn/strips.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels::onednn {

namespace {

// Sizes of the copies of operands whose type oneDNN does not multiply.
constexpr int64_t kCopyBytes = 8 << 20;
constexpr int64_t kCopyStep = 64;

int64_t rows_that_fit(int64_t columns, int64_t rows) {
  const int64_t fitting = kCopyBytes / (4 * columns) / kCopyStep * kCopyStep;
  return std::min(rows, std::max(kCopyStep, fitting));
}

void convert_rows(
    int64_t rows,
    int64_t columns,
    const ConstMatrix& x,
    const Matrix& out) {
  parallel_ranges(rows, row_grain(columns), [&](int64_t begin, int64_t end) {
    simd::convert(
        {end - begin, columns, from_row(x, begin), from_row(out, begin)});
  });
}

/// x as it is where it is of `type`, else a copy that is.
ConstMatrix as_type(
    const ConstMatrix& x,
    DType type,
    int64_t rows,
    int64_t columns,
    Scratch& scratch) {
  if (x.type == type) {
    return x;
  }
  const Matrix copy{scratch.get<float>(rows * columns), type, columns};
  convert_rows(rows, columns, x, copy);
  return {copy.data, copy.type, copy.stride};
}

/// With `narrow`, bfloat16 is multiplied as it is.
bool stays_bfloat16(const MatmulArgs& args, bool narrow) {
  return narrow && args.x.type == DType::bf16 &&
      args.weight.type == DType::bf16;
}

bool is_native(const MatmulArgs& args, bool narrow) {
  const bool bf16 = stays_bfloat16(args, narrow);
  const bool f32 = args.x.type == DType::f32 && args.weight.type == DType::f32;
  return (f32 || bf16) &&
      (args.out.type == DType::f32 || (bf16 && args.out.type == DType::bf16)) &&
      (!args.residual.data || args.residual.type == args.out.type);
}

struct Copies {
  Scratch x, weight, out;
};

/// One block of the result through copies in types that oneDNN multiplies.
void convert_and_multiply(MatmulArgs args, bool narrow, Copies& copies) {
  const bool bf16 =
      narrow && args.x.type == DType::bf16 && args.weight.type == DType::bf16;
  const auto type = bf16 ? DType::bf16 : DType::f32;
  args.x = as_type(args.x, type, args.m, args.k, copies.x);
  args.weight = args.weight_by_depth
      ? as_type(args.weight, type, args.k, args.n, copies.weight)
      : as_type(args.weight, type, args.n, args.k, copies.weight);
  if (is_native(args, narrow)) {
    return product(args);
  }
  const Matrix out = args.out;
  args.out = {copies.out.get<float>(args.m * args.n), DType::f32, args.n};
  if (args.residual.data && args.residual.type != DType::f32) {
    convert_rows(args.m, args.n, args.residual, args.out);
    args.residual = {args.out.data, args.out.type, args.out.stride};
  }
  product(args);
  convert_rows(
      args.m, args.n, {args.out.data, DType::f32, args.out.stride}, out);
}

void multiply_by_blocks(const MatmulArgs& args, bool narrow) {
  thread_local Copies copies;
  const int64_t columns = rows_that_fit(args.k, args.n);
  const int64_t rows =
      std::min(rows_that_fit(args.k, args.m), rows_that_fit(columns, args.m));
  for (int64_t j = 0; j < args.n; j += columns) {
    for (int64_t i = 0; i < args.m; i += rows) {
      convert_and_multiply(
          block_of(args, {i, rows}, {j, columns}), narrow, copies);
    }
  }
}

// x from memory that does not begin at a cache line costs AMX a third of its
// rate, by tile loads that cross lines; a copy of x costs less.
constexpr int64_t kCacheLine = 64;
constexpr int64_t kMostAligned = 32 << 20;  // bytes
constexpr int64_t kFewestColumns = 128;     // that use each value of x

bool wants_aligned_copy(const MatmulArgs& args) {
  const bool aligned =
      reinterpret_cast<uintptr_t>(args.x.data) % kCacheLine == 0;
  return !aligned && args.x.type == DType::bf16 && args.n >= kFewestColumns &&
      args.m * args.k * 2 <= kMostAligned;
}

ConstMatrix aligned_copy(const MatmulArgs& args) {
  thread_local Scratch scratch;
  auto* copy = scratch.get<BFloat16>(args.m * args.k);
  parallel_ranges(args.m, row_grain(args.k), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const void* row = advance(args.x.data, args.x.type, i * args.x.stride);
      std::memcpy(copy + i * args.k, row, size_t(args.k) * sizeof(BFloat16));
    }
  });
  return {copy, DType::bf16, args.k};
}

/// Packing the weight once for all strips pays from about these rows on.
constexpr int64_t kFewestStripRows = 512;

bool bfloat16_strips_pay(const MatmulArgs& args) {
  const auto address = reinterpret_cast<uintptr_t>(args.weight.data);
  const bool in_pairs =
      args.k % 2 == 0 && args.weight.stride % 2 == 0 && address % 4 == 0;
  return args.x.type == DType::bf16 && args.weight.type == DType::bf16 &&
      !args.weight_by_depth && in_pairs && args.m >= kFewestStripRows &&
      strips_pay(args, DType::bf16);
}

void multiply(const MatmulArgs& args, bool narrow) {
  if (args.m == 0 || args.n == 0) {
    return;
  }
  if (args.m <= simd::kFewRows && !args.weight_by_depth) {
    return simd::matmul(args);  // bound by memory, and needs no compiling
  }
  if (!stays_bfloat16(args, narrow) && strips_pay(args)) {
    return strip_product({args});
  }
  if (narrow && bfloat16_strips_pay(args)) {
    return strip_product({args, false, false, DType::bf16});
  }
  if (!is_native(args, narrow)) {
    return multiply_by_blocks(args, narrow);
  }
  MatmulArgs native = args;
  if (wants_aligned_copy(args)) {
    native.x = aligned_copy(args);
  }
  product(native);
}

void quantized_multiply(
    const QuantizedMatmulArgs& args,
    ProductFn product,
    bool narrow) {
  if (args.m <= simd::kFewRows) {
    return simd::quantized_few_rows(args);
  }
  const bool bf16 = narrow && args.x.type == DType::bf16;
  quantized_matmul_by_panels(args, product, bf16 ? DType::bf16 : DType::f32);
}

}  // namespace

void matmul(const MatmulArgs& args) {
  multiply(args, has_bfloat16());
}

void quantized_matmul(const QuantizedMatmulArgs& args) {
  quantized_multiply(args, matmul, has_bfloat16());
}

namespace {

void gram_by_strips(const GramArgs& args, ProductFn matmul, bool narrow) {
  int64_t at = 0;
  for (const auto& part : args.parts) {
    const auto out = from_row(args.out, at);
    at += part.m;
    const MatmulArgs product{
        .m = part.m,
        .n = args.n,
        .k = args.rows,
        .x = part.a,
        .weight = args.b,
        .residual = as_const(out),
        .out = out,
        .weight_by_depth = true};
    const auto type =
        stays_bfloat16(product, narrow) ? DType::bf16 : DType::f32;
    if (!strips_pay(product, type)) {
      GramArgs alone = args;
      alone.parts = {part};
      alone.out = out;
      gram_by_products(alone, matmul, simd::transpose);
      continue;
    }
    strip_product({product, true, is_square(args, part), type});
  }
  complete_squares(args);
}

}  // namespace

void gram(const GramArgs& args) {
  gram_by_strips(args, matmul, has_bfloat16());
}

void gram_f32(const GramArgs& args) {
  gram_by_strips(args, matmul_f32, false);
}

void matmul_f32(const MatmulArgs& args) {
  multiply(args, false);
}

void quantized_matmul_f32(const QuantizedMatmulArgs& args) {
  quantized_multiply(args, matmul_f32, false);
}

std::string version() {
  const auto* own = dnnl_version();
  return std::to_string(own->major) + "." + std::to_string(own->minor) + "." +
      std::to_string(own->patch);
}

std::string_view target_name(bool narrow) {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core_amx:
      return narrow ? "avx512_core_amx" : "avx512_core";
    case dnnl::cpu_isa::avx512_core_bf16:
      return narrow ? "avx512_core_bf16" : "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core:
      return "avx512_core";
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx2_vnni:
      return "avx2";
    default:
      return "below avx2";
  }
}

}  // namespace pennyweight::kernels::onednn

#endif
