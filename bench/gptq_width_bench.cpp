// How fast GPTQ is for linears of many inputs: Gram sums, the Hessian's
// factorization and the rounding of rows, each as a rate of the operations
// that its formula asks for, beside a square float32 product of the same run.
//
//   gptq_width_bench [rows = 512] [widths = 1536 8960 14336 18944]
//
// rounds that many rows in full, and four times as many plain.
//
// Operations, n being the width: Gram sums of t tokens n^2 t (of x^T x half
// is computed), factorization n^3 / 3, plain rounding n^2 a row (feedback),
// and in full 13 n^2: shift 4, losses 4, feedback, refit and descent 2 each.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "measure.h"
#include "method/gptq/gptq.h"

namespace {

using namespace pennyweight;
using kernels::DType;

constexpr int64_t kTokens = 2048;

double seconds_of(const std::function<void()>& call) {
  const double start = bench::now();
  call();
  return bench::now() - start;
}

void print(const char* what, double seconds, double flops, double peak) {
  const double rate = flops / seconds * 1e-9;
  std::printf(
      "  %-20s %8.3f s %7.0f GF/s %4.0f %%\n",
      what,
      seconds,
      rate,
      rate / peak * 100);
  std::fflush(stdout);
}

/// The best of some: what the machine gives.
double product_rate() {
  constexpr int64_t kSize = 2048;
  std::vector<float> a(kSize * kSize, 0.5f), b(a), c(a);
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    best = std::min(best, seconds_of([&] {
                      kernels::matmul(
                          {.m = kSize,
                           .n = kSize,
                           .k = kSize,
                           .x = {a.data(), DType::f32, kSize},
                           .weight = {b.data(), DType::f32, kSize},
                           .out = {c.data(), DType::f32, kSize}});
                    }));
  }
  return 2.0 * kSize * kSize * kSize / best * 1e-9;
}

std::vector<float> normal(int64_t count, float deviation, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> draw(0, deviation);
  std::vector<float> block(1 << 20);
  for (float& value : block) {
    value = draw(random);
  }
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = block[(i + i / 1000003 * 7919) % block.size()];
  }
  return values;
}

/// sum x x^T of bfloat16 activations with columns of unequal size.
std::vector<float> make_hessian(int64_t n, double peak) {
  auto x = normal(kTokens * n, 1, 1);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] *= 1.0f + 0.5f * std::sin(float(i % size_t(n)));
  }
  std::vector<kernels::BFloat16> narrow(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    kernels::from_float(x[i], narrow[i]);
  }
  std::vector<float> hessian(size_t(n * n));
  const kernels::ConstMatrix in{narrow.data(), DType::bf16, n};
  const kernels::GramArgs args{
      .rows = kTokens,
      .n = n,
      .b = in,
      .parts = {{n, in}},
      .out = {hessian.data(), DType::f32, n}};
  const double flops = double(n) * double(n) * kTokens;
  print(
      "gram, bfloat16", seconds_of([&] { kernels::gram(args); }), flops, peak);
  return hessian;
}

void bench_rows(
    const GptqHessian& hessian,
    int64_t rows,
    bool plain,
    const std::vector<float>& shift,
    double peak) {
  const int64_t n = hessian.columns();
  const auto weight = normal(rows * n, 0.02f, 2);
  GptqOptions options;
  options.plain = plain;
  const double seconds = seconds_of([&] {
    gptq_quantize(
        weight.data(),
        rows,
        hessian,
        make_quant_spec("affine", 4, 64),
        DType::bf16,
        options,
        {shift.data(), nullptr});
  });
  const double each = double(n) * double(n) * double(rows);
  print(
      plain ? "rounding, plain" : "rounding, in full",
      seconds,
      plain ? each : 13 * each,
      peak);
}

void bench_width(int64_t n, int64_t rows) {
  const double peak = product_rate();
  std::printf(
      "width %d, %d rows; product %.0f GF/s\n", int(n), int(rows), peak);
  auto sums = make_hessian(n, peak);
  // As large as what one block's error makes of the next one's inputs.
  std::vector<float> shift(sums);
  for (float& value : shift) {
    value *= 0.01f;
  }
  const GptqOptions options;
  std::optional<GptqHessian> hessian;
  const double took =
      seconds_of([&] { hessian.emplace(std::move(sums), n, options); });
  print("factorization", took, double(n) * double(n) * double(n) / 3, peak);
  bench_rows(*hessian, 4 * rows, true, shift, peak);
  bench_rows(*hessian, rows, false, shift, peak);
}

}  // namespace

int main(int count, char** arguments) {
  const int64_t rows = count > 1 ? std::atoll(arguments[1]) : 512;
  std::vector<int64_t> widths;
  for (int i = 2; i < count; ++i) {
    widths.push_back(std::atoll(arguments[i]));
  }
  if (widths.empty()) {
    widths = {1536, 8960, 14336, 18944};
  }
  for (int64_t width : widths) {
    bench_width(width, rows);
  }
  return 0;
}
