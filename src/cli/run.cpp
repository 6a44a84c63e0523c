#include "cli/run.h"

#include <CLI/CLI.hpp>
#include <list>
#include <memory>
#include <optional>

#include "cli/bind.h"
#include "cli/completion.h"
#include "cli/console.h"
#include "cli/hub_names.h"
#include "cli/last_words.h"
#include "commands/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/signal_stack.h"
#include "core/version.h"
#include "ops/ops.h"
#include "pass/process_group.h"
#include "run/session.h"

namespace pennyweight::cli {

namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 internal error, 2 wrong usage, 3 not found, "
    "4 corrupt input,\n5 the system refused (disk, memory, network, "
    "permission), "
    "6 not supported,\n7 unusable numbers (NaN weights), 130 stopped.";

// What every command takes beside its own options.
struct Shared {
  std::vector<std::string> json;
  bool quiet = false;
  bool force = false;  // of commands that have no --force of their own
  CLI::Option* json_option = nullptr;
  CLI::Option* force_option = nullptr;

  void add(CLI::App& app) {
    json_option =
        app.add_option(
               "--report,--json",
               json,
               "Write the result to FILE as JSON; without a FILE, progress "
               "and result as JSON lines on stdout")
            ->expected(0, 1)
            ->type_name("[FILE]");
    app.add_flag("--quiet", quiet, "No progress; warnings and errors only");
    force_option = app.get_option_no_throw("--force");
    if (!force_option) {
      force_option = app.add_flag("--force", force, "Replace --json's FILE");
    }
  }

  // Whether progress is for a reader.
  bool shows_progress() const {
    const auto target = json_target();
    return !quiet && !(target && (target->empty() || *target == "-"));
  }

  std::optional<std::string> json_target() const {
    if (json_option->count() == 0) {
      return std::nullopt;
    }
    return json.empty() ? "" : json.front();
  }
};

// Help without the value that CLI11 shows for the --no- form of a flag, and
// with the advanced options only where all are asked for.
struct HelpText : CLI::Formatter {
  mutable bool shows_all = false;

  std::string make_help(
      const CLI::App* app,
      std::string name,
      CLI::AppFormatMode mode) const override {
    shows_all = mode == CLI::AppFormatMode::All;
    return CLI::Formatter::make_help(app, std::move(name), mode);
  }
  std::string make_group(
      std::string group,
      bool positional,
      std::vector<const CLI::Option*> options) const override {
    if (group == kAdvanced && !shows_all) {
      return "\nAdvanced: --help-all shows " + std::to_string(options.size()) +
          " more options.\n";
    }
    return CLI::Formatter::make_group(
        std::move(group), positional, std::move(options));
  }
  std::string make_option_name(const CLI::Option* option, bool positional)
      const override {
    auto name = CLI::Formatter::make_option_name(option, positional);
    const std::string value = "{false}";
    if (const auto at = name.find(value); at != std::string::npos) {
      name.erase(at, value.size());
    }
    return name;
  }
};

struct Entry {
  CLI::App* parser = nullptr;
  Shared shared;
  std::string name;
  std::unique_ptr<Call> call;
};

int guarded(Console& console, const std::function<void(Console&)>& body) {
  try {
    body(console);
    return 0;
  } catch (...) {
    const auto words = last_words(std::current_exception());
    end_in_order(words.code, [&] { console.error(words.name, words.line); });
    return words.code;
  }
}

// Of several processes the first speaks for all, and writes.
void run_call(
    const Entry& entry,
    const std::optional<std::string>& json,
    Console& console) {
  const bool force = entry.shared.force_option->count() > 0;
  const ProcessGroup& group = ProcessGroup::world();
  if (!group.first()) {
    Session session(
        entry.name, [](const ProgressEvent&) { return !interrupted(); });
    entry.call->run(session);
    return;
  }
  console.configure(json, entry.shared.quiet, force);
  Session session(entry.name, console.progress());
  session.reserve_file =
      [&](const std::string& path, bool replaces, const char* option) {
        console.output_file(path, replaces, option);
      };
  const auto report = entry.call->run(session);
  console.result(to_json(report), summary(report));
}

// The flags of all commands, and the fields that they set.
class CommandLine {
 public:
  CommandLine()
      : app_(
            "pennyweight quantizes language models for MLX: it reads a Hugging "
            "Face "
            "checkpoint\nand writes one that stock mlx-lm loads.",
            "pennyweight") {
    app_.formatter(std::make_shared<HelpText>());
    app_.set_version_flag("--version", version());
    app_.set_help_all_flag("--help-all", "Print all options, too, and exit");
    app_.require_subcommand(1);
    app_.footer(kExitCodes);
    app_.add_flag("--hub-names", asks_names_)->group("");
    for (const Command& command : commands()) {
      add(command);
    }
    completion_ = app_.add_subcommand(
        "completion", "Completion of commands and flags, for a shell");
    completion_->add_option("shell", shell_, "Whose script to print")
        ->required()
        ->check(CLI::IsMember(shells()));
    completion_->footer(
        "Examples:\n  pennyweight completion bash\n"
        "  eval \"$(pennyweight completion bash)\"   # in ~/.bashrc");
  }

  // Throws what CLI11 does.
  void parse(int argc, const char* const* argv) {
    app_.parse(argc, argv);
  }

  CLI::App& app() {
    return app_;
  }

  // The script, where that is what is asked for.
  std::optional<std::string> script() const {
    return completion_->parsed() ? std::optional(completion(app_, shell_))
                                 : std::nullopt;
  }

  // Else the command that was parsed; require_subcommand sees that there is
  // one.
  const Entry& chosen() const {
    for (const Entry& entry : entries_) {
      if (entry.parser->parsed()) {
        return entry;
      }
    }
    throw argument_error("usage", "no command is named");
  }

  bool asks_names() const {
    return asks_names_;
  }

  Json names() const {
    const Entry& entry = chosen();
    auto names = hub_names(*entry.parser);
    names["progress"] = entry.shared.shows_progress();
    return names;
  }

 private:
  void add(const Command& command) {
    Entry& entry = entries_.emplace_back();
    entry.parser = app_.add_subcommand(command.name, command.summary);
    entry.parser->footer("Examples:\n" + command.examples + "\n" + kExitCodes);
    entry.name = command.name;
    entry.call = command.call();
    entry.call->visit(bind_flags(*entry.parser));
    entry.shared.add(*entry.parser);
  }

  CLI::App app_;
  CLI::App* completion_ = nullptr;
  std::string shell_;
  bool asks_names_ = false;   // see run/fetched.h
  std::list<Entry> entries_;  // the parser keeps references into them
};

// 0, or the exit code of what was said.
int run_command(int argc, const char* const* argv) {
  ops::keep_freed_memory();
  Console console;
  CommandLine line;
  try {
    line.parse(argc, argv);
  } catch (const CLI::Success& success) {
    const int code = line.app().exit(success);  // --help, --version
    return code ? code : guarded(console, [](Console& own) { own.flush(); });
  } catch (const CLI::ParseError& error) {
    const CLI::App& app = line.app();
    std::string what = error.what();
    if (app.get_subcommands().empty() && app.remaining_size() > 0) {
      what = "no command or flag " + app.remaining().front();
    }
    const int code = exit_code(ErrorCode::invalid_argument);
    end_in_order(code, [&] {
      console.error(
          "invalid_argument",
          "[usage] " + one_line(what) + "; see pennyweight --help");
    });
    return code;
  }
  if (const auto script = line.script()) {
    return guarded(console, [&](Console& own) {
      own.say(*script);
      own.flush();
    });
  }
  if (line.asks_names()) {
    return guarded(console, [&](Console& own) {
      own.say(json_text(line.names()));
      own.flush();
    });
  }
  const Entry& entry = line.chosen();
  const auto json = entry.shared.json_target();
  say_last_words_in_json(json && (json->empty() || *json == "-"));
  const int code =
      guarded(console, [&](Console& own) { run_call(entry, json, own); });
  if (code != 0) {
    abandon_ranks(code);
  }
  return code;
}

}  // namespace

int run(int argc, const char* const* argv) {
  install_last_words();
  open_closed_streams();
  const SignalStack stack;
  install_interrupt_handler();
  const int code = run_command(argc, argv);
  if (code == 0) {
    end_in_order(0, [] {});
  }
  return code;
}

std::optional<Json> asked_names(int argc, const char* const* argv) {
  CommandLine line;
  try {
    line.parse(argc, argv);
  } catch (const CLI::Error&) {
    return std::nullopt;
  }
  return line.script() ? std::nullopt : std::optional(line.names());
}

}  // namespace pennyweight::cli
