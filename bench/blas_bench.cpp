// Float32 products by each implementation that this machine has, in one run:
// oneDNN's, a BLAS's and ours, on the shapes that Cholesky updates, GPTQ's
// feedback, Gram sums and linears have. The best of some, on all threads.
//
//   blas_bench [repeats = 7]

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "measure.h"

namespace {

using namespace pennyweight;
using kernels::Choice;
using kernels::DType;

struct Shape {
  const char* what;
  int64_t m, n, k;
  bool by_depth;
};

constexpr Shape kShapes[] = {
    {"square", 2048, 2048, 2048, false},
    {"linear, 512 tokens", 512, 4096, 4096, false},
    {"Cholesky's update", 512, 4096, 512, true},
    {"GPTQ's feedback", 4096, 3968, 128, true},
    {"Gram band", 256, 4096, 1024, false},
    {"small linear", 512, 576, 576, false},
};

double rate(Choice choice, const Shape& shape, int repeats) {
  const auto [what, m, n, k, by_depth] = shape;
  std::vector<float> x(size_t(m * k), 0.5f), w(size_t(n * k), 0.25f);
  std::vector<float> out(size_t(m * n));
  const kernels::MatmulArgs args{
      .m = m,
      .n = n,
      .k = k,
      .x = {x.data(), DType::f32, k},
      .weight = {w.data(), DType::f32, by_depth ? n : k},
      .out = {out.data(), DType::f32, n},
      .weight_by_depth = by_depth};
  const auto& own = kernels::implementation(choice);
  double best = 1e9;
  for (int i = 0; i <= repeats; ++i) {
    const double start = bench::now();
    own.matmul(args);
    best = std::min(best, bench::now() - start);
  }
  return 2e-9 * double(m) * double(n) * double(k) / best;
}

}  // namespace

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
  std::vector<Choice> choices;
  for (Choice choice : kernels::available_choices()) {
    // In float32 both of oneDNN's multiply alike.
    if (choice != Choice::reference && choice != Choice::onednn_f32) {
      choices.push_back(choice);
    }
  }
  std::printf(
      "%s, %d threads; GF/s\n%-20s %20s",
      bench::processor().c_str(),
      kernels::thread_count(),
      "",
      "m x n x k");
  for (Choice choice : choices) {
    const std::string name = std::string(kernels::choice_name(choice)) + " " +
        std::string(kernels::target_name(choice));
    std::printf(" %24s", name.c_str());
  }
  std::printf("\n");
  for (const Shape& shape : kShapes) {
    const std::string size = std::to_string(shape.m) + " x " +
        std::to_string(shape.n) + " x " + std::to_string(shape.k);
    std::printf("%-20s %20s", shape.what, size.c_str());
    for (Choice choice : choices) {
      std::printf(" %24.0f", rate(choice, shape, repeats));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  return 0;
}
