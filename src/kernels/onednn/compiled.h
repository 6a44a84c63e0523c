#pragma once

#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include <cstdint>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/kernels.h"
#include "kernels/product_log.h"

namespace pennyweight::kernels::onednn {

/// What a compiled product depends on.
struct ProductShape {
  int64_t m, n, k;
  int64_t x_stride, weight_stride, out_stride;
  int64_t type, out_type;
  int64_t by_depth, packed, bias, adds;

  bool operator==(const ProductShape&) const = default;
};

/// A compiled product, which runs on one thread. Several threads may run it at
/// once.
class CompiledProduct {
 public:
  explicit CompiledProduct(const ProductShape& shape);

  /// `bias` is null or float32 [n]. A shape that `adds` adds to what stands in
  /// args.out. bad_alloc where the system gives no memory.
  void run(const MatmulArgs& args, const float* bias) const;

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
  void execute(const MatmulArgs& args, const float* bias) const;

  ProductServer* server_ = nullptr;
  bool is_brgemm_ = false;
  bool is_slow_ = false;
  dnnl::memory::desc x_, weight_, out_, bias_, scratchpad_;
  dnnl::matmul matmul_;
};

/// The product of that shape. The first time that it is asked for it is
/// compiled, which takes a millisecond or so. A not_supported Error where
/// oneDNN has none.
std::shared_ptr<const CompiledProduct> compiled(const ProductShape& shape);

}  // namespace pennyweight::kernels::onednn

#endif
