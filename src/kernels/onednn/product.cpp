#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include "kernels/onednn/product.h"

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/error.h"
#include "kernels/access.h"
#include "kernels/onednn/compiled.h"
#include "kernels/onednn/onednn.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels::onednn {

namespace {

void copy_residual(const MatmulArgs& args) {
  if (args.residual.data == args.out.data) {
    return;
  }
  parallel_ranges(args.m, row_grain(args.n), [&](int64_t begin, int64_t end) {
    simd::convert(
        {end - begin,
         args.n,
         from_row(args.residual, begin),
         from_row(args.out, begin)});
  });
}

const float* wide_bias(const MatmulArgs& args) {
  if (!args.bias.data || args.bias.type == DType::f32) {
    return static_cast<const float*>(args.bias.data);
  }
  thread_local Scratch scratch;
  float* bias = scratch.get<float>(args.n);
  simd::convert(
      {1,
       args.n,
       {args.bias.data, args.bias.type, args.n},
       {bias, DType::f32, args.n}});
  return bias;
}

bool has_isa(dnnl::cpu_isa wanted) {
  const auto bits = unsigned(wanted);
  return (unsigned(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

/// Intel's cores since Sapphire Rapids leave bfloat16 to AMX, which a virtual
/// machine may hide: without it their VDPBF16PS multiplies 0.6 times as fast
/// as float32's FMA (bench/kernels_bench). Cooper Lake's and AMD's do not.
bool is_slow_without_amx() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  return __builtin_cpu_is("intel") && !__builtin_cpu_is("cooperlake");
#else
  return false;
#endif
}

}  // namespace

bool has_bfloat16() {
  static const bool has = has_isa(dnnl::cpu_isa::avx512_core_bf16);
  return has;
}

bool bfloat16_pays() {
  static const bool pays = has_bfloat16() &&
      (has_isa(dnnl::cpu_isa::avx512_core_amx) || !is_slow_without_amx());
  return pays;
}

int64_t packed_columns(int64_t n) {
  return n >= kPackedColumns ? kPackedColumns : (n + 15) / 16 * 16;
}

namespace {

ProductShape shape_of(const MatmulArgs& args, bool packed) {
  return {
      args.m,
      args.n,
      args.k,
      args.x.stride,
      packed ? 0 : args.weight.stride,
      args.out.stride,
      int64_t(args.x.type),
      int64_t(args.out.type),
      args.weight_by_depth,
      packed,
      args.bias.data != nullptr,
      args.residual.data != nullptr};
}

void run_product(const CompiledProduct& product, const MatmulArgs& args) {
  if (args.residual.data) {
    copy_residual(args);
  }
  product.run(args, wide_bias(args));
}

/// out = residual + x.
void add_rows(const MatmulArgs& args, const ConstMatrix& x) {
  const bool floats =
      args.out.type == DType::f32 && args.residual.type == DType::f32;
  for (int64_t i = 0; i < args.m; ++i) {
    if (!floats) {
      for (int64_t j = 0; j < args.n; ++j) {
        const float sum = load_at(args.residual, i, j) + load_at(x, i, j);
        store_at(args.out, i, j, sum);
      }
      continue;
    }
    const auto* from = static_cast<const float*>(from_row(x, i).data);
    const auto* so_far =
        static_cast<const float*>(from_row(args.residual, i).data);
    auto* to = static_cast<float*>(from_row(args.out, i).data);
    for (int64_t j = 0; j < args.n; ++j) {
      to[j] = so_far[j] + from[j];
    }
  }
}

CountedProduct counted(const CompiledProduct& product, const MatmulArgs& args) {
  return {product.server(), args.m, args.n, args.k, args.x.type};
}

/// What serves a product. `apart`: its result is made in other memory and
/// copied.
struct Served {
  std::shared_ptr<const CompiledProduct> product;
  bool apart = false;
};

/// oneDNN's fast products have results without gaps between their rows.
Served serve(const MatmulArgs& args) {
  auto made = compiled(shape_of(args, false));
  if (!made->is_brgemm() && args.out.stride != args.n) {
    MatmulArgs dense = args;
    dense.out.stride = args.n;
    auto apart = compiled(shape_of(dense, false));
    if (apart->is_brgemm()) {
      return {std::move(apart), true};
    }
  }
  return {std::move(made), false};
}

void run_served(const Served& served, const MatmulArgs& args) {
  if (served.product->is_slow()) {
    return simd::matmul(args);
  }
  if (!served.apart) {
    return run_product(*served.product, args);
  }
  thread_local Scratch scratch;
  MatmulArgs dense = args;
  dense.out = {scratch.get<float>(args.m * args.n), args.out.type, args.n};
  run_product(*served.product, dense);
  simd::convert({args.m, args.n, as_const(dense.out), args.out});
}

}  // namespace

void product(const MatmulArgs& args) {
  const ProductTiles tiles = in_task() ? ProductTiles{args.m, args.n}
                                       : product_tiles(args.m, args.n, args.k);
  const int64_t across = divide_up(args.n, tiles.columns);
  const auto tile = [&](int64_t i) {
    return block_of(
        args,
        {i / across * tiles.rows, tiles.rows},
        {i % across * tiles.columns, tiles.columns});
  };
  const auto first = serve(tile(0));
  if (first.product->is_slow()) {
    return simd::matmul(args);
  }
  const auto count = counted(*first.product, args);
  parallel_tasks(divide_up(args.m, tiles.rows) * across, [&](int64_t i) {
    const auto own = tile(i);
    run_served(i == 0 ? first : serve(own), own);
  });
}

void packed_product(const MatmulArgs& args) {
  const auto made = compiled(shape_of(args, true));
  if (!made->is_slow()) {
    const auto count = counted(*made, args);
    return run_product(*made, args);
  }
  // oneDNN has no fast product of a packed weight whose rows are further apart
  // than they are wide: it is made apart and added.
  thread_local Scratch scratch;
  MatmulArgs dense = args;
  dense.out = {scratch.get<float>(args.m * args.n), DType::f32, args.n};
  dense.residual = {};
  const auto apart = compiled(shape_of(dense, true));
  if (apart->is_slow()) {
    throw not_supported_error(
        "kernels",
        "oneDNN has no fast product of a packed weight here; set "
        "PENNYWEIGHT_KERNEL to simd");
  }
  const auto count = counted(*apart, args);
  run_product(*apart, dense);
  if (args.residual.data) {
    add_rows(args, as_const(dense.out));
  } else {
    simd::convert({args.m, args.n, as_const(dense.out), args.out});
  }
}

bool packed_product_works(int64_t n, int64_t k, DType type) {
  MatmulArgs args{.m = 64, .n = n, .k = k};
  args.x = {nullptr, type, k};
  args.out = {nullptr, DType::f32, n};
  MatmulArgs adding = args;
  adding.residual = {&adding, DType::f32, n};
  try {
    return compiled(shape_of(args, true))->is_brgemm() &&
        compiled(shape_of(adding, true))->is_brgemm();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace pennyweight::kernels::onednn

#endif
