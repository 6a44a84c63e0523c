#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/types.h"

/// Which implementation has served this process's matrix products, so that a
/// slow one cannot go unnoticed. With PENNYWEIGHT_TRACE_PRODUCTS=1 each shape
/// is timed, too, and a table of them goes to stderr when the process ends.
namespace pennyweight::kernels {

/// An implementation, such as "oneDNN brg:avx512_core_bf16" or "simd AVX3".
struct ProductServer {
  std::string name;
  std::atomic<int64_t> calls{0};
  std::atomic<int64_t> operations{0};
};

/// The implementation of that name, which is made where there is none and lives
/// as long as the process.
ProductServer& product_server(std::string_view name);

/// Counts a product [m, k] by [k, n] for `server`, as 2 m n k operations; where
/// products are traced it is timed as long as this lives.
class CountedProduct {
 public:
  CountedProduct(
      ProductServer& server,
      int64_t m,
      int64_t n,
      int64_t k,
      DType type);
  ~CountedProduct();
  CountedProduct(const CountedProduct&) = delete;
  CountedProduct& operator=(const CountedProduct&) = delete;

 private:
  ProductServer& server_;
  int64_t m_, n_, k_;
  DType type_;
  double start_ = 0;  // seconds, where products are traced
};

struct ServedProducts {
  std::string name;
  int64_t calls = 0;
  int64_t operations = 0;
};

/// All implementations that have served any, those of most operations first.
std::vector<ServedProducts> products_served();

/// What has been served since `before` was asked for.
std::vector<ServedProducts> served_since(
    const std::vector<ServedProducts>& before);

}  // namespace pennyweight::kernels
