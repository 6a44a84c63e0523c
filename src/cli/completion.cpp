#include "cli/completion.h"
#include "core/text.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace pennyweight::cli {

namespace {

struct Flag {
  std::vector<std::string> names;  // with their dashes
  std::string about;
  bool takes_value = false;
  bool is_path = false;
  std::vector<std::string> choices;
};

/// The first clause of a help text, without what shells read as their own.
std::string brief(const std::string& help) {
  std::string text = help.substr(0, help.find_first_of(":;.("));
  std::erase_if(text, [](char c) {
    return std::string_view("'\"[]`\\$\n").find(c) != std::string_view::npos;
  });
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

/// The kind of value is TEXT, MODEL and the like, and then :{its,choices}.
Flag flag_of(const CLI::Option& option) {
  Flag flag;
  for (const auto& name : option.get_snames()) {
    flag.names.push_back("-" + name);
  }
  for (const auto& name : option.get_lnames()) {
    flag.names.push_back("--" + name);
  }
  flag.about = brief(option.get_description());
  flag.takes_value = option.get_items_expected_max() > 0;
  const auto type = option.get_type_name();
  if (const auto at = type.find(":{"); at != std::string::npos) {
    flag.choices = cut(type.substr(at + 2, type.size() - at - 3), ',');
  }
  flag.is_path = flag.takes_value && flag.choices.empty() &&
      type.find("INT") == std::string::npos && type != "FLOAT";
  return flag;
}

std::vector<Flag> flags_of(const CLI::App& command) {
  std::vector<Flag> flags;
  for (const CLI::Option* option : command.get_options()) {
    if (auto flag = flag_of(*option); !flag.names.empty()) {
      flags.push_back(std::move(flag));
    }
  }
  return flags;
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::string names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(app)) {
    names.push_back(command->get_name());
  }
  return joined(names, " ");
}

std::string bash(const CLI::App& app) {
  std::string values;
  std::string all;
  for (const CLI::App* command : commands_of(app)) {
    const auto& name = command->get_name();
    std::vector<std::string> names;
    for (const Flag& flag : flags_of(*command)) {
      names.insert(names.end(), flag.names.begin(), flag.names.end());
      if (!flag.takes_value) {
        continue;
      }
      std::vector<std::string> cases;
      for (const auto& own : flag.names) {
        cases.push_back(name + ":" + own);
      }
      const std::string answer = flag.choices.empty()
          ? flag.is_path ? "_pennyweight_files \"$current\"" : ":"
          : "COMPREPLY=($(compgen -W '" + joined(flag.choices, " ") +
              "' -- \"$current\"))";
      values += "    " + joined(cases, "|") + ") " + answer + "; return ;;\n";
    }
    all += "    " + name + ") flags='" + joined(names, " ") + "' ;;\n";
  }
  return "# eval \"$(pennyweight completion bash)\"\n"
         "_pennyweight_files() {\n"
         "  compopt -o filenames 2> /dev/null\n"
         "  COMPREPLY=($(compgen -f -- \"$1\"))\n"
         "}\n\n"
         "_pennyweight() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]}\n"
         "  local before=${COMP_WORDS[COMP_CWORD - 1]}\n"
         "  local command=${COMP_WORDS[1]} flags=\n"
         "  COMPREPLY=()\n"
         "  if ((COMP_CWORD == 1)); then\n"
         "    COMPREPLY=($(compgen -W '" +
      names_of_commands(app) +
      " --help --version' -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case $command:$before in\n" +
      values +
      "  esac\n"
      "  case $command in\n" +
      all +
      "  esac\n"
      "  if [[ $current == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$flags\" -- \"$current\"))\n"
      "  elif [[ $command == completion ]]; then\n"
      "    COMPREPLY=($(compgen -W '" +
      joined(shells(), " ") +
      "' -- \"$current\"))\n"
      "  else\n"
      "    _pennyweight_files \"$current\"\n"
      "  fi\n"
      "}\n\n"
      "complete -F _pennyweight pennyweight\n";
}

std::string zsh(const CLI::App& app) {
  std::string commands;
  std::string cases;
  for (const CLI::App* command : commands_of(app)) {
    const auto& name = command->get_name();
    commands +=
        "    '" + name + ":" + brief(command->get_description()) + "'\n";
    cases += "    " + name + ")\n      _arguments \\\n";
    for (const Flag& flag : flags_of(*command)) {
      std::string value;
      if (flag.takes_value) {
        value = flag.choices.empty()
            ? flag.is_path ? ":file:_files" : ":number: "
            : ":choice:(" + joined(flag.choices, " ") + ")";
      }
      for (const auto& own : flag.names) {
        cases += "        '(" + joined(flag.names, " ") + ")" + own + "[" +
            flag.about + "]" + value + "' \\\n";
      }
    }
    cases += name == "completion"
        ? "        ':shell:(" + joined(shells(), " ") + ")' ;;\n"
        : "        '*:file:_files' ;;\n";
  }
  return "#compdef pennyweight\n"
         "# pennyweight completion zsh > a folder of $fpath/_pennyweight\n"
         "_pennyweight() {\n"
         "  local -a commands=(\n" +
      commands +
      "  )\n"
      "  if ((CURRENT == 2)); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local command=$words[2]\n"
      "  shift words\n"
      "  ((CURRENT--))\n"
      "  case $command in\n" +
      cases +
      "  esac\n"
      "}\n\n"
      "if [ \"$funcstack[1]\" = _pennyweight ]; then\n"
      "  _pennyweight \"$@\"\n"
      "else\n"
      "  compdef _pennyweight pennyweight\n"
      "fi\n";
}

std::string fish(const CLI::App& app) {
  std::string text =
      "# pennyweight completion fish > "
      "~/.config/fish/completions/pennyweight.fish\n";
  for (const CLI::App* command : commands_of(app)) {
    const auto& name = command->get_name();
    text += "complete -c pennyweight -f -n __fish_use_subcommand -a " + name +
        " -d '" + brief(command->get_description()) + "'\n";
    const std::string start =
        "complete -c pennyweight -n '__fish_seen_subcommand_from " + name + "'";
    if (name == "completion") {
      text += start + " -f -a '" + joined(shells(), " ") + "'\n";
    }
    for (const Flag& flag : flags_of(*command)) {
      text += start;
      for (const auto& own : flag.names) {
        text += own.starts_with("--") ? " -l " + own.substr(2)
                                      : " -s " + own.substr(1);
      }
      if (!flag.choices.empty()) {
        text += " -x -a '" + joined(flag.choices, " ") + "'";
      } else if (flag.takes_value) {
        text += flag.is_path ? " -r -F" : " -x";
      }
      text += " -d '" + flag.about + "'\n";
    }
  }
  return text;
}

}  // namespace

std::vector<std::string> shells() {
  return {"bash", "zsh", "fish"};
}

std::string completion(const CLI::App& app, const std::string& shell) {
  return shell == "bash" ? bash(app) : shell == "zsh" ? zsh(app) : fish(app);
}

}  // namespace pennyweight::cli
