#include "commands/command.h"
#include "core/error.h"

namespace pennyweight {

namespace {

/// As Python's parser and the shells' completion have them, too.
struct UploadOptions {
  std::string folder;
  std::string repo;
  bool is_private = false;
  std::string revision = "main";
  std::string message = "Upload model with pennyweight";

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "folder",
         .help = "Finished folder of a model",
         .positional = true,
         .required = true,
         .takes = "FOLDER"},
        self.folder);
    option(
        {.name = "repo",
         .help = "Repository org/name of the hub; made where there is none",
         .required = true},
        self.repo);
    option(
        {.name = "private",
         .help = "Make it private; an existing one must be so already"},
        self.is_private);
    option({.name = "revision", .help = "Branch to commit to"}, self.revision);
    option(
        {.name = "commit-message", .help = "First line of the commit"},
        self.message);
  }
};

// The command is Python's (python/pennyweight/upload.py); here stands what the
// program says of it.
RunReport run(Session& session, const UploadOptions&) {
  throw not_supported_error(
      session.command(),
      "this program reads and writes folders; the pennyweight that `pip "
      "install` gives can upload, and so can `hf upload`");
}

}  // namespace

Command upload_command() {
  auto command = make_command<UploadOptions>(
      "upload",
      "Publish a finished model folder on the hub (of the pennyweight that "
      "pip installs)",
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit\n"
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit --private "
      "--revision next\n",
      run);
  command.in_package = true;
  return command;
}

}  // namespace pennyweight
