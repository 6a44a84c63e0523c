#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include "kernels/onednn/product.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>

#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/error.h"
#include "kernels/access.h"
#include "kernels/onednn/onednn.h"
#include "kernels/product_log.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiles.h"

namespace pennyweight::kernels::onednn {

namespace {

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::memory::data_type type_of(DType type) {
  return type == DType::bf16 ? dnnl::memory::data_type::bf16
                             : dnnl::memory::data_type::f32;
}

/// What a compiled product depends on.
struct Shape {
  int64_t m, n, k;
  int64_t x_stride, weight_stride, out_stride;
  int64_t type, out_type;
  int64_t by_depth, packed, bias, accumulate;

  bool operator==(const Shape&) const = default;
};

struct ShapeHash {
  size_t operator()(const Shape& shape) const {
    int64_t values[sizeof(Shape) / sizeof(int64_t)];
    std::memcpy(values, &shape, sizeof(shape));
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t value : values) {
      hash = (hash ^ uint64_t(value)) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 29;
    }
    return size_t(hash);
  }
};

dnnl::memory::format_tag packed_tag(DType type, int64_t n) {
  using Tag = dnnl::memory::format_tag;
  const bool pairs = type == DType::bf16;
  switch (packed_columns(n)) {
    case 16:
      return pairs ? Tag::BA16a16b2a : Tag::BA16a16b;
    case 32:
      return pairs ? Tag::BA16a32b2a : Tag::BA16a32b;
    case 48:
      return pairs ? Tag::BA16a48b2a : Tag::BA16a48b;
    default:
      return pairs ? Tag::BA16a64b2a : Tag::BA16a64b;
  }
}

/// oneDNN, which asks OpenMP, uses one thread as long as this lives.
class OneThread {
 public:
  OneThread() {
    omp_set_num_threads(1);
  }
  ~OneThread() {
    omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = omp_get_max_threads();
};

/// A compiled product on one thread; to be run by any number of them at once.
class Product {
 public:
  explicit Product(const Shape& shape) {
    using Tag = dnnl::memory::desc;
    const auto type = type_of(DType(shape.type));
    x_ = Tag({shape.m, shape.k}, type, {shape.x_stride, 1});
    weight_ = shape.packed
        ? Tag({shape.k, shape.n}, type, packed_tag(DType(shape.type), shape.n))
        : shape.by_depth
        ? Tag({shape.k, shape.n}, type, {shape.weight_stride, 1})
        : Tag({shape.k, shape.n}, type, {1, shape.weight_stride});
    out_ =
        Tag({shape.m, shape.n},
            type_of(DType(shape.out_type)),
            {shape.out_stride, 1});
    bias_ = Tag({1, shape.n}, dnnl::memory::data_type::f32, {shape.n, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (shape.accumulate) {
      dnnl::post_ops post_ops;
      post_ops.append_sum(1.0f);
      attributes.set_post_ops(post_ops);
    }
    const auto descriptor = shape.bias
        ? dnnl::matmul::desc(x_, weight_, bias_, out_)
        : dnnl::matmul::desc(x_, weight_, out_);
    const dnnl::matmul::primitive_desc primitive(
        descriptor, attributes, engine());
    scratchpad_ = primitive.scratchpad_desc();
    const std::string_view name = primitive.impl_info_str();
    is_brgemm_ = name.starts_with("brg");
    is_slow_ = name.starts_with("ref") || name.ends_with(":any");
    server_ = &product_server("oneDNN " + std::string(name));
    matmul_ = dnnl::matmul(primitive);
  }

  void run(const MatmulArgs& args, const float* bias) const {
    thread_local dnnl::stream stream(engine());
    thread_local Scratch scratch;
    const auto memory = [](const dnnl::memory::desc& desc, const void* data) {
      return dnnl::memory(desc, engine(), const_cast<void*>(data));
    };
    void* pad = scratch.get<char>(int64_t(scratchpad_.get_size()));
    std::unordered_map<int, dnnl::memory> arguments{
        {DNNL_ARG_SRC, memory(x_, args.x.data)},
        {DNNL_ARG_WEIGHTS, memory(weight_, args.weight.data)},
        {DNNL_ARG_DST, memory(out_, args.out.data)},
        {DNNL_ARG_SCRATCHPAD, memory(scratchpad_, pad)}};
    if (bias) {
      arguments.emplace(DNNL_ARG_BIAS, memory(bias_, bias));
    }
    const OneThread alone;
    matmul_.execute(stream, arguments);
    stream.wait();
  }

  ProductServer& server() const {
    return *server_;
  }

  /// oneDNN's fast kernel for packed weights.
  bool is_brgemm() const {
    return is_brgemm_;
  }
  /// oneDNN has nothing but its scalar loop for this product, which is a
  /// hundred times slower than any other kernel.
  bool is_slow() const {
    return is_slow_;
  }

 private:
  ProductServer* server_ = nullptr;
  bool is_brgemm_ = false;
  bool is_slow_ = false;
  dnnl::memory::desc x_, weight_, out_, bias_, scratchpad_;
  dnnl::matmul matmul_;
};

/// bad_alloc where oneDNN would not get the memory that a product's code takes:
/// it writes the code to a null pointer then.
void require_address_space() {
  constexpr size_t kCode = size_t{16} << 20;
  void* held =
      ::mmap(nullptr, kCode, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (held == MAP_FAILED) {
    throw std::bad_alloc();
  }
  ::munmap(held, kCode);
}

/// Compiling takes a millisecond or so, hence the cache.
class ProductCache {
 public:
  std::shared_ptr<const Product> get(const Shape& shape) {
    {
      std::shared_lock lock(mutex_);
      const auto found = products_.find(shape);
      if (found != products_.end()) {
        return found->second;
      }
    }
    auto made = make(shape);
    std::unique_lock lock(mutex_);
    if (products_.size() >= kMost) {
      products_.clear();
    }
    return products_.emplace(shape, std::move(made)).first->second;
  }

 private:
  static constexpr size_t kMost = 1024;

  static std::shared_ptr<const Product> make(const Shape& shape) {
    const OneThread alone;
    require_address_space();
    try {
      return std::make_shared<const Product>(shape);
    } catch (const dnnl::error& error) {
      if (error.status == dnnl_out_of_memory) {
        throw std::bad_alloc();
      }
      throw Error(
          ErrorCode::not_supported,
          "kernels",
          "oneDNN has no product of this shape (" + std::string(error.what()) +
              "); set PENNYWEIGHT_KERNEL to simd");
    }
  }

  std::shared_mutex mutex_;
  std::unordered_map<Shape, std::shared_ptr<const Product>, ShapeHash>
      products_;
};

ProductCache& cache() {
  static ProductCache products;
  return products;
}

void copy_residual(const MatmulArgs& args) {
  if (args.residual.data == args.out.data) {
    return;
  }
  parallel_ranges(args.m, 1 + 16384 / args.n, [&](int64_t begin, int64_t end) {
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

}  // namespace

namespace {

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

Shape shape_of(const MatmulArgs& args, bool packed) {
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

void run_product(const Product& product, const MatmulArgs& args) {
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

}  // namespace

namespace {

CountedProduct counted(const Product& product, const MatmulArgs& args) {
  return {product.server(), args.m, args.n, args.k, args.x.type};
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
  const auto first = cache().get(shape_of(tile(0), false));
  if (first->is_slow()) {
    return simd::matmul(args);
  }
  const auto count = counted(*first, args);
  parallel_tasks(divide_up(args.m, tiles.rows) * across, [&](int64_t i) {
    const auto own = tile(i);
    const auto made = i == 0 ? first : cache().get(shape_of(own, false));
    if (made->is_slow()) {
      return simd::matmul(own);
    }
    run_product(*made, own);
  });
}

void packed_product(const MatmulArgs& args) {
  const auto made = cache().get(shape_of(args, true));
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
  const auto apart = cache().get(shape_of(dense, true));
  if (apart->is_slow()) {
    throw Error(
        ErrorCode::not_supported,
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
    return cache().get(shape_of(args, true))->is_brgemm() &&
        cache().get(shape_of(adding, true))->is_brgemm();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace pennyweight::kernels::onednn

#endif
