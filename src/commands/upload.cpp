#include "commands/command.h"
#include "core/error.h"

namespace pennyweight {

namespace {

struct NoOptions {
  template <class Self, class Visitor>
  static void visit(Self&, Visitor&&) {}
};

// The command is Python's (python/pennyweight/upload.py); here stands what the
// program says of it.
RunReport run(Session& session, const NoOptions&) {
  throw Error(
      ErrorCode::not_supported,
      session.command(),
      "this program reads and writes folders; the pennyweight that `pip "
      "install` gives can upload, and so can `hf upload`");
}

}  // namespace

Command upload_command() {
  auto command = make_command<NoOptions>(
      "upload",
      "Publish a finished model folder on the hub (of the pennyweight that "
      "pip installs)",
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit\n"
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit --private "
      "--revision next\n",
      run);
  command.takes_anything = true;
  return command;
}

}  // namespace pennyweight
