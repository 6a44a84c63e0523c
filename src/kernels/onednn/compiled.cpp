#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include "kernels/onednn/compiled.h"

#ifdef PENNYWEIGHT_HAVE_OPENMP
#include <omp.h>
#endif

#include <cstring>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/error.h"
#include "core/process.h"
#include "kernels/onednn/product.h"
#include "kernels/scratch.h"

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

struct ProductShapeHash {
  size_t operator()(const ProductShape& shape) const {
    int64_t values[sizeof(ProductShape) / sizeof(int64_t)];
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

#ifdef PENNYWEIGHT_HAVE_OPENMP
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
#else
/// A oneDNN without OpenMP has no threads but its caller's.
struct OneThread {
  OneThread() {}
};
#endif

/// Address space for the code of a product.
constexpr size_t kCode = size_t{16} << 20;

/// Runs `work`, which calls oneDNN, and turns what that throws into bad_alloc
/// if the system is out of memory, else into `other(message)`. Not every part
/// of oneDNN says that memory was refused, so the system is asked.
template <class Work, class Other>
auto calling_onednn(const Work& work, const Other& other) {
  try {
    return work();
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory || !has_address_space(kCode)) {
      throw std::bad_alloc();
    }
    throw other(std::string(error.what()));
  }
}

class ProductCache {
 public:
  std::shared_ptr<const CompiledProduct> get(const ProductShape& shape) {
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

  static std::shared_ptr<const CompiledProduct> make(
      const ProductShape& shape) {
    const OneThread alone;
    // Without this memory oneDNN would write the code to a null pointer.
    if (!has_address_space(kCode)) {
      throw std::bad_alloc();
    }
    return calling_onednn(
        [&] { return std::make_shared<const CompiledProduct>(shape); },
        [](const std::string& said) {
          return not_supported_error(
              "kernels",
              "oneDNN has no product of this shape (" + said +
                  "); set PENNYWEIGHT_KERNEL to simd");
        });
  }

  std::shared_mutex mutex_;
  std::unordered_map<
      ProductShape,
      std::shared_ptr<const CompiledProduct>,
      ProductShapeHash>
      products_;
};

}  // namespace

CompiledProduct::CompiledProduct(const ProductShape& shape) {
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
  if (shape.adds) {
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

void CompiledProduct::run(const MatmulArgs& args, const float* bias) const {
  calling_onednn(
      [&] { execute(args, bias); },
      [](const std::string& said) {
        return std::runtime_error("oneDNN failed in a product: " + said);
      });
}

void CompiledProduct::execute(const MatmulArgs& args, const float* bias) const {
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

std::shared_ptr<const CompiledProduct> compiled(const ProductShape& shape) {
  static ProductCache products;
  return products.get(shape);
}

}  // namespace pennyweight::kernels::onednn

#endif
