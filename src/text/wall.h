#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/progress.h"

namespace pennyweight {

/// A process of its own for what a checkpoint brings along: chat templates,
/// tokenizers, and the texts that go through them. A template is a program, and
/// a tokenizer can make a gigabyte of a kilobyte: behind the wall neither can
/// crash this process, hold it up or take its memory.
///
/// The process is forked, so it has what this one had in memory, and answers
/// requests one by one. What it does is cut into sections, each with a limit of
/// processor time and of memory that goes with the size of its input; passing
/// one, a stack that runs over, or any other crash ends the process, and the
/// request with a corrupt Error that names the file and the row.
///
/// Why a process: a thread can't be stopped, and a stack that has run over or
/// an allocation that fails inside the Rust crate can't be come back from. A
/// request costs some 20 microseconds.
class Wall {
 public:
  enum class Part { load, render, tokenize, read };
  struct Spot;  // what the process is at

  /// The work of a section, in the process behind the wall; elsewhere it does
  /// nothing. Sections within a section count as part of it.
  class Section {
   public:
    /// `where` names the row or file, `bytes` is the size of what goes in.
    Section(Part part, std::string_view where, size_t bytes);
    ~Section();
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;
  };

  /// The answer to a request; called behind the wall. What it throws as an
  /// Error is thrown by ask(); what it reports goes to ask()'s progress.
  using Serve =
      std::function<std::string(std::string_view request, const ProgressFn&)>;

  /// `memory_limit` in bytes, 0 for none, holds for all that the Rust crate
  /// allocates there. io Error where no process can be made.
  explicit Wall(Serve serve, int64_t memory_limit = 0);
  ~Wall();
  Wall(const Wall&) = delete;
  Wall& operator=(const Wall&) = delete;

  /// Waits for the answer. Where `progress` cancels, the process is ended.
  std::string ask(std::string_view request, const ProgressFn& progress = {});

  /// Behind the wall: the files that load and tokenize, and render, stand for.
  static void name_files(
      const std::string& tokenizer,
      const std::string& chat_template);

 private:
  [[noreturn]] void throw_death();
  void finish(int signal);

  pid_t child_ = -1;
  int socket_ = -1;
  Spot* spot_ = nullptr;  // shared by both processes
  std::optional<Error> death_;
};

}  // namespace pennyweight
