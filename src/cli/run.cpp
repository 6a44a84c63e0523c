#include "cli/run.h"

#include <CLI/CLI.hpp>
#include <list>
#include <memory>

#include "cli/bind.h"
#include "cli/console.h"
#include "cli/hub_names.h"
#include "cli/last_words.h"
#include "commands/command.h"
#include "core/error.h"
#include "core/json.h"
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

// 0, or the exit code of what was said.
int run_command(int argc, const char* const* argv) {
  ops::keep_freed_memory();
  Console console;
  CLI::App app(
      "pennyweight quantizes language models for MLX: it reads a Hugging Face "
      "checkpoint\nand writes one that stock mlx-lm loads.",
      "pennyweight");
  app.formatter(std::make_shared<HelpText>());
  app.set_version_flag("--version", version());
  app.set_help_all_flag("--help-all", "Print all options, too, and exit");
  app.require_subcommand(1);
  app.footer(kExitCodes);
  bool asks_names = false;  // see run/fetched.h
  app.add_flag("--hub-names", asks_names)->group("");

  std::list<Entry> entries;  // the parser keeps references into them
  for (const Command& command : commands()) {
    Entry& entry = entries.emplace_back();
    entry.parser = app.add_subcommand(command.name, command.summary);
    entry.parser->footer("Examples:\n" + command.examples + "\n" + kExitCodes);
    entry.name = command.name;
    entry.parser->allow_extras(command.takes_anything);
    entry.call = command.call();
    entry.call->visit(bind_flags(*entry.parser));
    entry.shared.add(*entry.parser);
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    const int code = app.exit(success);  // --help, --version
    return code ? code : guarded(console, [](Console& own) { own.flush(); });
  } catch (const CLI::ParseError& error) {
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
  for (const Entry& entry : entries) {
    if (entry.parser->parsed()) {
      const Shared& shared = entry.shared;
      if (asks_names) {
        return guarded(console, [&](Console& own) {
          auto names = hub_names(*entry.parser);
          names["progress"] = shared.shows_progress();
          own.say(json_text(names));
          own.flush();
        });
      }
      const auto json = shared.json_target();
      say_last_words_in_json(json && (json->empty() || *json == "-"));
      const int code =
          guarded(console, [&](Console& own) { run_call(entry, json, own); });
      if (code != 0) {
        abandon_ranks(code);
      }
      return code;
    }
  }
  return 1;
}

}  // namespace

int run(int argc, const char* const* argv) {
  install_last_words();
  open_closed_streams();
  install_interrupt_handler();
  const int code = run_command(argc, argv);
  if (code == 0) {
    end_in_order(0, [] {});
  }
  return code;
}

}  // namespace pennyweight::cli
