#include "cli/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iostream>

#include "core/error.h"
#include "core/json.h"
#include "core/json_text.h"
#include "core/time_left.h"
#include "run/kernel_report.h"

namespace pennyweight::cli {

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int> interrupt_count{0};

extern "C" void on_interrupt(int) {
  if (interrupt_count.fetch_add(1) > 0) {
    _exit(130);  // asked twice: the orderly stop takes too long
  }
}

int terminal_width() {
  winsize size{};
  bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0;
  return known && size.ws_col > 20 ? size.ws_col : 80;
}

std::string scaled(double value) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G"};
  int unit = 0;
  while (value >= 10000 && unit < 3) {
    value /= 1000;
    ++unit;
  }
  return fixed(value, value < 10 && unit == 0 ? 1 : 0) + kUnits[unit];
}

std::string rate_and_eta(const ProgressEvent& event, double seconds) {
  if (seconds < 0.2 || event.done <= 0) {
    return "";
  }
  double rate = static_cast<double>(event.done) / seconds;
  std::string text = event.unit == "bytes"
      ? human_bytes(rate) + "/s"
      : scaled(rate) + " " + event.unit + "/s";
  if (event.total > event.done) {
    const double counted = static_cast<double>(event.total - event.done) / rate;
    text += ", " + human_time(event.left.value_or(counted)) + " left";
  }
  return text;
}

std::string counts(const ProgressEvent& event) {
  if (event.unit == "bytes") {
    std::string text = human_bytes(static_cast<double>(event.done));
    return event.total > 0
        ? text + " of " + human_bytes(static_cast<double>(event.total))
        : text;
  }
  std::string text = std::to_string(event.done);
  if (event.total > 0) {
    text += "/" + std::to_string(event.total);
  }
  return text + " " + event.unit;
}

// The last resort: whoever puts a name in a text shows it by shown(), which
// knows where the name ends.
std::string without_controls(const std::string& text) {
  std::string clean;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    clean += shown(std::string_view(text).substr(at, end - at));
    clean += end < text.size() ? "\n" : "";
    at = end + 1;
  }
  return clean;
}

}  // namespace

bool interrupted() {
  return interrupt_count.load() > 0;
}

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_ONSTACK;  // see core/signal_stack.h
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  // A closed pipe or a full file is reported by write(), not by a signal.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void open_closed_streams() {
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) == -1 && errno == EBADF) {
      // The wrong way round: what is written there is refused, not lost.
      const int mode = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;
      if (::open("/dev/null", mode) != fd) {
        _exit(5);
      }
    }
  }
}

Console::Console()
    : style_(Style::plain), terminal_(::isatty(STDERR_FILENO) != 0) {
  style_ = terminal_ ? Style::bar : Style::plain;
}

Console::~Console() {
  clear_bar();
}

void Console::configure(
    const std::optional<std::string>& json,
    bool quiet,
    bool force) {
  if (quiet) {
    style_ = Style::quiet;
  }
  if (json && (json->empty() || *json == "-")) {
    style_ = Style::events;
  } else if (json) {
    json_file_ = output_file(*json, force, "--json");
  }
}

std::optional<OutputFile> Console::output_file(
    const std::string& path,
    bool force,
    const std::string& option) {
  if (path.empty()) {
    return std::nullopt;
  }
  OutputFile file(path, force, option);
  for (const auto& [other, taken] : files_) {
    if (taken.is(file)) {
      throw argument_error(
          "output",
          other + " and " + option + " name the same file, " + path +
              "; give each its own");
    }
  }
  files_.emplace_back(option, file);
  return file;
}

void Console::say(const std::string& text) {
  errno = 0;
  std::cout << text << std::flush;
  if (!std::cout && failed_ == 0) {
    failed_ = errno ? errno : EIO;
  }
}

void Console::flush() {
  say("");
  if (failed_) {
    throw io_error("output", "can't write", "standard output", failed_);
  }
}

ProgressFn Console::progress() {
  return [this](const ProgressEvent& event) { return on_event(event); };
}

void Console::emit(Json json) {
  // Untrusted text may hold bytes that are no UTF-8.
  say(to_text(json) + "\n");
}

bool Console::on_event(const ProgressEvent& event) {
  // Stages of one run open the same folders, and say the same of them.
  if (event.warning) {
    if (std::ranges::count(warnings_, event.message) > 0) {
      return !interrupted();
    }
    warnings_.push_back(event.message);
  }
  if (event.stage != stage_ || event.done == 0) {
    clear_bar();
    stage_ = event.stage;
    stage_start_ = Clock::now();
    last_tenth_ = -1;
  }
  if (style_ == Style::events) {
    Json json;
    json["event"] = event.warning ? "warning"
        : event.unit.empty()      ? "message"
                                  : "progress";
    json["stage"] = event.stage;
    if (!event.unit.empty()) {
      json["done"] = event.done;
      json["total"] = event.total;
      json["unit"] = event.unit;
      json["seconds"] = seconds_since(stage_start_);
      if (event.left) {
        json["left"] = *event.left;
      }
    }
    if (!event.message.empty()) {
      json["message"] = event.message;
    }
    emit(std::move(json));
  } else if (event.warning) {
    clear_bar();
    std::cerr << "warning: " << shown(one_line(event.message, 600))
              << std::endl;
  } else if (style_ == Style::bar) {
    draw_bar(event);
  } else if (style_ == Style::plain) {
    plain_line(event);
  }
  return !interrupted();
}

void Console::clear_bar() {
  if (bar_drawn_) {
    std::cerr << "\r\033[K" << std::flush;
    bar_drawn_ = false;
  }
}

void Console::draw_bar(const ProgressEvent& event) {
  if (event.unit.empty()) {
    clear_bar();
    std::cerr << shown(one_line(event.message, 600)) << std::endl;
    return;
  }
  bool finished = event.total > 0 && event.done >= event.total;
  if (bar_drawn_ && !finished && seconds_since(last_drawn_) < 0.1) {
    return;
  }
  last_drawn_ = Clock::now();
  double seconds = seconds_since(stage_start_);
  std::string line = event.stage + " ";
  if (event.total > 0) {
    constexpr int kCells = 24;
    double share =
        static_cast<double>(event.done) / static_cast<double>(event.total);
    int full = std::clamp(static_cast<int>(share * kCells), 0, kCells);
    line += "[" + std::string(static_cast<size_t>(full), '#') +
        std::string(static_cast<size_t>(kCells - full), '.') + "] ";
  }
  line += counts(event);
  if (auto rate = rate_and_eta(event, seconds); !rate.empty()) {
    line += "  " + rate;
  }
  if (!event.message.empty()) {
    line += "  " + shown(one_line(event.message, 80));
  }
  line.resize(std::min(line.size(), static_cast<size_t>(terminal_width() - 1)));
  std::cerr << "\r\033[K" << line << std::flush;
  bar_drawn_ = true;
}

void Console::plain_line(const ProgressEvent& event) {
  if (event.unit.empty()) {
    std::cerr << event.stage << ": " << shown(one_line(event.message, 600))
              << std::endl;
    return;
  }
  // A log wants a line now and then, not one a module: each tenth, and no
  // more than one in two seconds but for the last.
  int tenth = event.total > 0
      ? static_cast<int>(event.done * 10 / event.total)
      : static_cast<int>(seconds_since(stage_start_) / 10);
  bool finished = event.total > 0 && event.done >= event.total;
  if (tenth <= last_tenth_ || (!finished && seconds_since(last_drawn_) < 2.0)) {
    return;
  }
  last_tenth_ = tenth;
  last_drawn_ = Clock::now();
  std::string rate = rate_and_eta(event, seconds_since(stage_start_));
  std::cerr << event.stage << ": " << counts(event)
            << (rate.empty() ? "" : ", " + rate) << std::endl;
}

void Console::print(const std::string& text) {
  clear_bar();
  if (style_ != Style::events) {
    say(without_controls(text));
    flush();
  }
}

void Console::result(const Json& own, const std::string& text) {
  clear_bar();
  if (const auto slow = slow_products(); !slow.empty()) {
    on_event({"kernels", 0, 0, "", slow, true});
  }
  auto json = own;
  json["kernels"] = kernels_json();
  json["warnings"] = warnings_;
  if (style_ == Style::events) {
    Json event;
    event["event"] = "result";
    event["result"] = json;
    emit(std::move(event));
  } else {
    say(without_controls(text));
  }
  // The file first: the reader's pipe may be closed and the disk not full.
  if (json_file_) {
    json_file_->write(json_text(json));
  }
  flush();
}

void Console::error(const std::string& code, const std::string& line) {
  clear_bar();
  if (style_ == Style::events) {
    Json event;
    event["event"] = "error";
    event["code"] = code;
    event["message"] = line;
    emit(std::move(event));
  }
  std::cerr << "error: " << shown(line) << std::endl;
}

}  // namespace pennyweight::cli
