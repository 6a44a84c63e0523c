#include "core/signal_stack.h"

#include <csignal>

namespace pennyweight {

namespace {

// A frame holds all registers: 12 KB with AMX's tiles.
constexpr size_t kBytes = size_t{256} << 10;

}  // namespace

SignalStack::SignalStack() {
  stack_t before{};
  if (::sigaltstack(nullptr, &before) != 0 ||
      (before.ss_flags & SS_DISABLE) == 0) {
    return;
  }
  memory_ = std::make_unique<char[]>(kBytes);
  stack_t own{};
  own.ss_sp = memory_.get();
  own.ss_size = kBytes;
  if (::sigaltstack(&own, nullptr) != 0) {
    memory_.reset();
  }
}

SignalStack::~SignalStack() {
  if (memory_) {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
  }
}

}  // namespace pennyweight
