#include "cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iostream>

#include "core/atomic_file.h"
#include "pipeline/kernel_report.h"

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

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
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

}  // namespace

bool interrupted() {
  return interrupt_count.load() > 0;
}

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  // A closed pipe or a full file is reported by write(), not by a signal.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

Console::Console()
    : style_(Style::plain), terminal_(::isatty(STDERR_FILENO) != 0) {
  style_ = terminal_ ? Style::bar : Style::plain;
}

Console::~Console() {
  clear_bar();
}

void Console::configure(const std::optional<std::string>& json, bool quiet) {
  if (quiet) {
    style_ = Style::quiet;
  }
  if (json && (json->empty() || *json == "-")) {
    style_ = Style::events;
  } else if (json) {
    json_file_ = *json;
    AtomicFile probe(json_file_);  // found out now, not when the work is done
  }
}

ProgressFn Console::progress() {
  return [this](const ProgressEvent& event) { return on_event(event); };
}

void Console::emit(Json json) {
  // Untrusted text may hold bytes that are no UTF-8.
  std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace)
            << std::endl;
}

bool Console::on_event(const ProgressEvent& event) {
  // Stages of one run open the same folders, and say the same of them.
  if (event.warning && !warnings_.insert(event.message).second) {
    return !interrupted();
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
    std::cerr << "warning: " << one_line(event.message, 600) << std::endl;
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
    std::cerr << one_line(event.message, 600) << std::endl;
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
    line += "  " + one_line(event.message, 80);
  }
  line.resize(std::min(line.size(), static_cast<size_t>(terminal_width() - 1)));
  std::cerr << "\r\033[K" << line << std::flush;
  bar_drawn_ = true;
}

void Console::plain_line(const ProgressEvent& event) {
  if (event.unit.empty()) {
    std::cerr << event.stage << ": " << one_line(event.message, 600)
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
    std::cout << text << std::flush;
  }
}

void Console::result(const Json& own, const std::string& text) {
  clear_bar();
  if (const auto slow = slow_products(); !slow.empty()) {
    on_event({"kernels", 0, 0, "", slow, true});
  }
  auto json = own;
  json["kernels"] = kernels_json();
  if (style_ == Style::events) {
    Json event;
    event["event"] = "result";
    event["result"] = json;
    emit(std::move(event));
  } else {
    std::cout << text << std::flush;
  }
  if (!json_file_.empty()) {
    write_file(json_file_, json.dump(2) + "\n");
  }
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
  std::cerr << "error: " << line << std::endl;
}

std::string fixed(double value, int decimals) {
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), "%.*f", decimals, value);
  return buffer;
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  return fixed(bytes, unit > 0 && bytes < 100 ? 2 : 0) + " " + kUnits[unit];
}

std::string human_time(double seconds) {
  auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e7)));
  char buffer[32];
  if (whole >= 3600) {
    std::snprintf(
        buffer,
        sizeof(buffer),
        "%d:%02d:%02d",
        static_cast<int>(whole / 3600),
        static_cast<int>(whole / 60 % 60),
        static_cast<int>(whole % 60));
  } else {
    std::snprintf(
        buffer,
        sizeof(buffer),
        "%d:%02d",
        static_cast<int>(whole / 60),
        static_cast<int>(whole % 60));
  }
  return buffer;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      std::string pad(widths[i] - row[i].size(), ' ');
      line += (i == 0 ? row[i] + pad : "  " + pad + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace pennyweight::cli
