#pragma once

#include <exception>
#include <functional>
#include <string>

#include "core/error.h"

namespace pennyweight::cli {

int exit_code(ErrorCode code);

/// How a process ends that can't go on: its exit code, that code's name in
/// JSON, and the one line of the reason.
struct LastWords {
  int code;
  std::string name;
  std::string line;
};

/// What an exception means for the process. Memory that was refused, and
/// whatever else the system refused to a library, are io: exit code 5.
LastWords last_words(std::exception_ptr thrown);

/// From here on the process ends in one line and a documented exit code, with
/// its temporaries removed, where no catch clause can see to that: memory
/// refused to any thread, threads refused, an exception that leaves a thread
/// or a destructor, a library that calls exit() or abort(), a mapped file that
/// shrinks, the limit of processor time. To be called before anything else.
void install_last_words();

/// Ends the process where the system has refused it a thread, once last words
/// are installed; returns otherwise.
void end_for_want_of_threads();

/// Whether the last line is said on stdout as a JSON event, too.
void say_last_words_in_json(bool json);

/// Only one thread may end the process: runs `say`, unless another thread has
/// begun to, for whose end this waits then. Later failures of this process
/// (destructors at exit) end it with `code` and say nothing.
void end_in_order(int code, const std::function<void()>& say);

}  // namespace pennyweight::cli
