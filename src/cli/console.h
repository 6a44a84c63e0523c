#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"

namespace pennyweight::cli {

/// Where a command's words go. Results go to stdout; progress, warnings and
/// errors to stderr: a bar with rate and time left on a terminal, plain lines
/// elsewhere. With `--json` and no file, stdout holds one JSON object a line:
/// {"event": "progress" | "warning" | "message" | "result" | "error", ...};
/// with a file, the result goes there as well as to the reader.
class Console {
 public:
  enum class Style { bar, plain, events, quiet };

  Console();
  ~Console();

  /// `json` is absent, "" or "-" (events on stdout), or a file for the result.
  void configure(const std::optional<std::string>& json, bool quiet);

  /// Handed to the library; false (cancel) once Ctrl-C was pressed.
  ProgressFn progress();

  /// Text for the reader; nothing when stdout holds events.
  void print(const std::string& text);
  /// The command's result, as `text` for a reader and as JSON for a program.
  /// The kernels that served it are added.
  void result(const Json& own, const std::string& text);
  void error(const std::string& code, const std::string& line);

 private:
  bool on_event(const ProgressEvent& event);
  void draw_bar(const ProgressEvent& event);
  void plain_line(const ProgressEvent& event);
  void clear_bar();
  void emit(Json json);

  Style style_;
  std::string json_file_;
  bool terminal_;
  bool bar_drawn_ = false;
  std::string stage_;
  std::chrono::steady_clock::time_point stage_start_;
  std::chrono::steady_clock::time_point last_drawn_;
  int last_tenth_ = -1;
  std::set<std::string> warnings_;  // that were shown
};

/// True once SIGINT or SIGTERM arrived; a second one ends the process.
bool interrupted();
void install_interrupt_handler();

/// "1.5 GB", "12 MB": decimal units, as file managers and hubs count.
std::string human_bytes(double bytes);
/// "1:02:03" or "4:05".
std::string human_time(double seconds);
/// Columns padded to their widest cell; the first is left-aligned, the rest
/// right-aligned. rows[0] is the header.
std::string table(const std::vector<std::vector<std::string>>& rows);
/// printf-style number.
std::string fixed(double value, int decimals);

}  // namespace pennyweight::cli
