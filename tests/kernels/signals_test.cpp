#include <gtest/gtest.h>
#include <sys/time.h>

#include <chrono>
#include <csignal>
#include <vector>

#include "core/signal_stack.h"
#include "kernels/kernels.h"

namespace pennyweight::kernels {
namespace {

void hear(int) {}

/// A signal a millisecond for as long as this lives, handled on the stack that
/// SA_ONSTACK names.
class ManySignals {
 public:
  ManySignals() {
    struct sigaction action {};
    action.sa_handler = hear;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    ::sigaction(SIGALRM, &action, &before_);
    const itimerval timer{{0, 1000}, {0, 1000}};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
  }
  ~ManySignals() {
    const itimerval off{};
    ::setitimer(ITIMER_REAL, &off, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }
  ManySignals(const ManySignals&) = delete;
  ManySignals& operator=(const ManySignals&) = delete;

 private:
  struct sigaction before_ {};
};

/// The products of GPTQ's refit, whose code in oneDNN a handler on the thread's
/// own stack breaks.
TEST(Signals, LeaveProductsAlone) {
  constexpr int64_t kMost = 512, kColumns = 16;
  const std::vector<float> x(kMost * kMost, 0.5f);
  const std::vector<float> y(kMost * kColumns, 0.25f);
  const SignalStack stack;
  const ManySignals signals;
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  for (int64_t i = 0; std::chrono::steady_clock::now() < end; ++i) {
    const int64_t rows = 1 + i * 7 % 130;
    const int64_t depth = 32 << i % 4;
    std::vector<float> out(size_t(rows * kColumns), 1.0f);
    matmul(
        {.m = rows,
         .n = kColumns,
         .k = depth,
         .x = {x.data(), DType::f32, kMost},
         .weight = {y.data(), DType::f32, kColumns},
         .bias = {},
         .residual = {out.data(), DType::f32, kColumns},
         .out = {out.data(), DType::f32, kColumns},
         .weight_by_depth = true});
    for (const float value : out) {
      ASSERT_EQ(value, 1.0f + 0.125f * float(depth));
    }
  }
}

}  // namespace
}  // namespace pennyweight::kernels
