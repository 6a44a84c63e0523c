#include "core/signal_stack.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>

namespace pennyweight {
namespace {

volatile uintptr_t handled_at = 0;

void note_place(int) {
  char here = 0;
  handled_at = reinterpret_cast<uintptr_t>(&here);
}

/// How far from this function's stack a handler runs.
uintptr_t distance_of_handler() {
  struct sigaction action {
  }, before{};
  action.sa_handler = note_place;
  action.sa_flags = SA_ONSTACK;
  ::sigaction(SIGUSR1, &action, &before);
  std::raise(SIGUSR1);
  ::sigaction(SIGUSR1, &before, nullptr);
  char here = 0;
  const auto place = reinterpret_cast<uintptr_t>(&here);
  return place > handled_at ? place - handled_at : handled_at - place;
}

TEST(SignalStack, HandlersLeaveTheThreadsOwnAlone) {
  constexpr uintptr_t kFar = uintptr_t{1} << 24;
  stack_t before{};
  ::sigaltstack(nullptr, &before);
  const bool had = (before.ss_flags & SS_DISABLE) == 0;
  if (!had) {
    EXPECT_LT(distance_of_handler(), kFar);
  }
  {
    const SignalStack stack;
    EXPECT_GT(distance_of_handler(), kFar);
  }
  stack_t after{};
  ::sigaltstack(nullptr, &after);
  EXPECT_EQ(after.ss_sp, had ? before.ss_sp : after.ss_sp);
  EXPECT_EQ((after.ss_flags & SS_DISABLE) == 0, had);
}

}  // namespace
}  // namespace pennyweight
