#pragma once

#include <memory>

namespace pennyweight {

/// Gives the calling thread a stack of its own for signal handlers, as long as
/// this lives, where it has none. Handlers that were installed with SA_ONSTACK
/// (ours, and Python's) then leave the thread's own stack alone: oneDNN's
/// float32 products keep values below the stack pointer, and a handler that ran
/// there has made them write past their buffers.
class SignalStack {
 public:
  SignalStack();
  ~SignalStack();
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  std::unique_ptr<char[]> memory_;  // null: the thread had one
};

}  // namespace pennyweight
