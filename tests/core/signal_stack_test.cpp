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

/// Whether a handler runs on the stack that was set for it. How far that lies
/// from the thread's own says nothing: in qemu they are neighbours.
bool is_handled_apart() {
  struct sigaction action {
  }, before{};
  action.sa_handler = note_place;
  action.sa_flags = SA_ONSTACK;
  ::sigaction(SIGUSR1, &action, &before);
  std::raise(SIGUSR1);
  ::sigaction(SIGUSR1, &before, nullptr);
  stack_t set{};
  ::sigaltstack(nullptr, &set);
  const auto begin = reinterpret_cast<uintptr_t>(set.ss_sp);
  return (set.ss_flags & SS_DISABLE) == 0 && handled_at >= begin &&
      handled_at < begin + set.ss_size;
}

TEST(SignalStack, HandlersLeaveTheThreadsOwnAlone) {
  stack_t before{};
  ::sigaltstack(nullptr, &before);
  const bool had = (before.ss_flags & SS_DISABLE) == 0;
  if (!had) {
    EXPECT_FALSE(is_handled_apart());
  }
  {
    const SignalStack stack;
    EXPECT_TRUE(is_handled_apart());
  }
  stack_t after{};
  ::sigaltstack(nullptr, &after);
  EXPECT_EQ(after.ss_sp, had ? before.ss_sp : after.ss_sp);
  EXPECT_EQ((after.ss_flags & SS_DISABLE) == 0, had);
}

}  // namespace
}  // namespace pennyweight
