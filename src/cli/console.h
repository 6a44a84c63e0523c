#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files/output_file.h"
#include "core/json_fwd.h"
#include "core/progress.h"
#include "core/text.h"

namespace pennyweight::cli {

/// Where a command's words go. Results go to stdout; progress, warnings and
/// errors to stderr: a bar with rate and time left on a terminal, plain lines
/// elsewhere. With `--json` and no file, stdout holds one JSON object a line:
/// {"event": "progress" | "warning" | "message" | "result" | "error", ...};
/// with a file, the result goes there as well as to the reader. Control
/// characters in names never reach either. An output that can't be written
/// (a full disk, a closed pipe) is an io Error of what was to be written last:
/// print(), result() and flush().
class Console {
 public:
  enum class Style { bar, plain, events, quiet };

  Console();
  ~Console();

  /// `json` is absent, "" or "-" (events on stdout), or a file for the result:
  /// see OutputFile, whose errors it has.
  void
  configure(const std::optional<std::string>& json, bool quiet, bool force);
  /// A file that another option names for a result, if it names one; one file
  /// for two options is an invalid_argument Error.
  std::optional<OutputFile>
  output_file(const std::string& path, bool force, const std::string& option);

  /// Handed to the library; false (cancel) once Ctrl-C was pressed.
  ProgressFn progress();

  /// Text for the reader; nothing when stdout holds events.
  void print(const std::string& text);
  /// The command's result, as `text` for a reader and as JSON for a program.
  /// The kernels that served it are added.
  void result(const Json& own, const std::string& text);
  void error(const std::string& code, const std::string& line);
  /// io Error where stdout has not taken all that was said.
  void flush();
  /// `text` to stdout as it is; a failure is kept for flush().
  void say(const std::string& text);

 private:
  bool on_event(const ProgressEvent& event);
  void draw_bar(const ProgressEvent& event);
  void plain_line(const ProgressEvent& event);
  void clear_bar();
  void emit(Json json);

  Style style_;
  std::optional<OutputFile> json_file_;
  std::vector<std::pair<std::string, OutputFile>> files_;  // by option
  bool terminal_;
  bool bar_drawn_ = false;
  std::string stage_;
  std::chrono::steady_clock::time_point stage_start_;
  std::chrono::steady_clock::time_point last_drawn_;
  int last_tenth_ = -1;
  std::vector<std::string> warnings_;  // that were shown
  int failed_ = 0;                     // errno of what stdout has not taken
};

/// As files hold it, with an end of line. Bytes that are no UTF-8 are replaced.
std::string json_text(const Json& json);

/// True once SIGINT or SIGTERM arrived; a second one ends the process.
bool interrupted();
void install_interrupt_handler();
/// Puts something in the place of standard streams that are closed, so that no
/// file is opened under their numbers; writing to stdout fails as before.
void open_closed_streams();

}  // namespace pennyweight::cli
