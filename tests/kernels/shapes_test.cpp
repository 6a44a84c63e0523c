// The shapes that people use, in every type and by every choice: as exact as
// others are, and none of them served by a library's scalar loop.

#include <algorithm>

#include "kernels/kernel_test.h"
#include "kernels/product_log.h"

namespace pennyweight::kernels {

namespace {

constexpr DType kShapeTypes[] = {DType::f32, DType::bf16, DType::f16};
constexpr int64_t kFewOperations = 1'000'000;

/// oneDNN's scalar loops are called "ref:any", "gemm:any" or so. Our naive
/// kernels, "reference", only run where they are asked for.
bool is_scalar(const std::string& name) {
  const std::string library = "oneDNN ";
  return name.starts_with(library + "ref") ||
      (name.starts_with(library) && name.ends_with(":any"));
}

/// Fails where a scalar loop has served since this was made.
class NothingScalar {
 public:
  explicit NothingScalar(std::string what) : what_(std::move(what)) {}

  ~NothingScalar() {
    for (const auto& own : served_since(before_)) {
      EXPECT_FALSE(is_scalar(own.name) && own.operations > kFewOperations)
          << own.name << " served " << own.operations << " operations of "
          << what_;
    }
  }

 private:
  std::string what_;
  std::vector<ServedProducts> before_ = products_served();
};

/// |a - b| / |b|, Frobenius.
double distance(const Tensor& a, const Tensor& b) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < a.rows(); ++i) {
    for (int64_t j = 0; j < a.columns(); ++j) {
      const double d = double(a.at(i, j)) - double(b.at(i, j));
      difference += d * d;
      size += double(b.at(i, j)) * double(b.at(i, j));
    }
  }
  return std::sqrt(difference / std::max(size, 1e-30));
}

Tensor as_float(const Tensor& x) {
  Tensor out(DType::f32, x.rows(), x.columns());
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t j = 0; j < x.columns(); ++j) {
      out.set(i, j, x.at(i, j));
    }
  }
  return out;
}

struct Heads {
  int64_t length, heads, kv_heads, dim;
  int64_t window = 0;
  float cap = 0;

  std::string text() const {
    return std::to_string(heads) + " heads of " + std::to_string(dim) + " on " +
        std::to_string(kv_heads) + ", " + std::to_string(length) + " tokens" +
        (window > 0 ? ", window" : "") + (cap > 0 ? ", cap" : "");
  }
};

struct Attended {
  Tensor out, dq, dk, dv;
};

Attended attend(
    const Implementation& kernels,
    const Heads& c,
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const Tensor& dout) {
  const DType type = q.type();
  const auto view = [&](const Tensor& x) {
    return HeadsView{x.data(), c.length * x.stride(), x.stride(), c.dim};
  };
  Attended made{
      Tensor(type, c.length, c.heads * c.dim),
      Tensor(type, c.length, c.heads * c.dim),
      Tensor(type, c.length, c.kv_heads * c.dim),
      Tensor(type, c.length, c.kv_heads * c.dim)};
  AttentionArgs args{
      .batch = 1,
      .length = c.length,
      .keys = c.length,
      .heads = c.heads,
      .kv_heads = c.kv_heads,
      .head_dim = c.dim,
      .scale = 1.0f / std::sqrt(float(c.dim)),
      .window = c.window,
      .cap = c.cap,
      .type = type,
      .q = view(q),
      .k = view(k),
      .v = view(v),
      .out = made.out.data()};
  kernels.attention(args);
  kernels.attention_backward(
      {.forward = args,
       .dout = view(dout),
       .dq = made.dq.data(),
       .dk = made.dk.data(),
       .dv = made.dv.data()});
  return made;
}

class Shapes : public KernelTest {
 protected:
  bool naive() const {
    return GetParam().choice == Choice::reference;
  }

  /// Against the same in float32 by Highway's kernels, which other tests hold
  /// to sums in float64.
  void check(const Heads& c, DType type) {
    SCOPED_TRACE(c.text() + ", " + type_name(type));
    const auto random = [&](int64_t heads, unsigned seed) {
      return Tensor::random(type, c.length, heads * c.dim, seed);
    };
    const auto q = random(c.heads, 1), k = random(c.kv_heads, 2);
    const auto v = random(c.kv_heads, 3), dout = random(c.heads, 4);
    const auto exact = attend(
        implementation(Choice::simd),
        c,
        as_float(q),
        as_float(k),
        as_float(v),
        as_float(dout));
    const NothingScalar watch(c.text());
    const auto made = attend(kernels(), c, q, k, v, dout);
    // Of the narrow type queries, weights, their gradients and the result are
    // rounded; in float32 sums differ in their order.
    const double allowed =
        8 * rounding(type == DType::f16 ? DType::f32 : type) + rounding(type) +
        1e-5;
    EXPECT_LT(distance(made.out, exact.out), allowed);
    EXPECT_LT(distance(made.dq, exact.dq), allowed);
    EXPECT_LT(distance(made.dk, exact.dk), allowed);
    EXPECT_LT(distance(made.dv, exact.dv), allowed);
  }

  void multiply(int64_t m, int64_t n, int64_t k, DType type, bool by_depth) {
    const auto x = Tensor::random(type, m, k, 1);
    const auto w = by_depth ? Tensor::random(type, k, n, 2)
                            : Tensor::random(type, n, k, 2);
    Tensor out(type, m, n), exact(DType::f32, m, n);
    const auto args = [&](const Tensor& a, const Tensor& b, Tensor& to) {
      return MatmulArgs{
          .m = m,
          .n = n,
          .k = k,
          .x = a.view(),
          .weight = b.view(),
          .out = to.out(),
          .weight_by_depth = by_depth};
    };
    const auto wide_x = as_float(x), wide_w = as_float(w);
    implementation(Choice::simd).matmul(args(wide_x, wide_w, exact));
    const std::string text = std::to_string(m) + " x " + std::to_string(n) +
        " x " + std::to_string(k) + ", " + type_name(type);
    SCOPED_TRACE(text);
    const NothingScalar watch(text);
    kernels().matmul(args(x, w, out));
    EXPECT_LT(distance(out, exact), 2 * rounding(type) + 1e-5);
  }

  void sum(int64_t rows, int64_t m, int64_t n, DType type) {
    const auto b = Tensor::random(type, rows, n, 1);
    const auto a = Tensor::random(type, rows, m, 2);
    const auto wide_b = as_float(b), wide_a = as_float(a);
    Tensor out(DType::f32, m + n, n), exact(DType::f32, m + n, n);
    const auto add = [&](const Implementation& by,
                         const Tensor& from_a,
                         const Tensor& from_b,
                         Tensor& to) {
      std::memset(to.data(), 0, size_t((m + n) * n) * sizeof(float));
      by.gram(
          {.rows = rows,
           .n = n,
           .b = from_b.view(),
           .parts = {{m, from_a.view()}, {n, from_b.view()}},
           .out = to.out()});
    };
    add(implementation(Choice::simd), wide_a, wide_b, exact);
    const std::string text = "sums of " + std::to_string(rows) + " rows, " +
        std::to_string(m) + " and " + std::to_string(n) + " wide, " +
        type_name(type);
    SCOPED_TRACE(text);
    const NothingScalar watch(text);
    add(kernels(), a, b, out);
    EXPECT_LT(distance(out, exact), 1e-5);
  }
};

// Sanitizers take ten times the time and look at memory, of which each size and
// each group shows all there is: there, each size has two groups, and no text
// is longer than some tiles. The optimized build has all pairs and lengths.
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kEachOf = 3;
constexpr int64_t kLongest = 515;
#else
constexpr int64_t kEachOf = 1;
constexpr int64_t kLongest = 1027;
#endif

TEST_P(Shapes, HeadsOfEverySizeAndGroup) {
  int64_t pair = 0;
  for (int64_t dim : {64, 80, 96, 112, 128, 192, 256, 512}) {
    ++pair;
    for (int64_t group : {1, 2, 3, 4, 7, 16}) {
      if (++pair % kEachOf != 0) {
        continue;
      }
      // Naively few tokens, but for the others more than a tile.
      const int64_t length = naive() ? 21 : group == 16 ? 65 : 131;
      const int64_t kv_heads = group < 4 ? 2 : 1;
      for (DType type : kShapeTypes) {
        check({length, group * kv_heads, kv_heads, dim}, type);
      }
    }
  }
}

TEST_P(Shapes, OddLengthsWindowsAndCaps) {
  for (int64_t length : {1, 15, 17, 63, 193, 515, 1027}) {
    if (length > (naive() ? 63 : kLongest)) {
      break;
    }
    for (DType type : kShapeTypes) {
      check({length, 4, 2, 80}, type);
      check({length, 2, 1, 256, 37}, type);
      check({length, 2, 2, 128, 0, 30}, type);
    }
  }
}

TEST_P(Shapes, ProductsOfOddSizes) {
  for (int64_t m : {1, 5, 33, 130}) {
    for (int64_t n : {63, 192, 257}) {
      for (int64_t k : {65, 128, 321}) {
        for (DType type : kShapeTypes) {
          multiply(m, n, k, type, false);
          multiply(m, n, k, type, true);
        }
      }
    }
  }
}

TEST_P(Shapes, SumsOfOddSizes) {
  for (int64_t rows : {1, 31, 65, naive() ? 130 : 2051}) {
    for (int64_t n : {63, 80, 200}) {
      for (DType type : kShapeTypes) {
        sum(rows, 64, n, type);
        sum(rows, 97, n, type);
      }
    }
  }
}

INSTANTIATE_KERNEL_TEST(Shapes);

}  // namespace

}  // namespace pennyweight::kernels
