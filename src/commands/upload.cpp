#include "checkpoint/hub_upload.h"
#include "commands/command.h"
#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

namespace {

RunReport run(Session& session, const UploadOptions& options) {
  const auto done = upload_model(options.folder, options, session.progress());
  auto& report = session.report();
  report.figures = to_json(done);
  report.text = std::to_string(done.files) + " files, " +
      human_bytes(double(done.bytes)) + ", of which " +
      human_bytes(double(done.sent)) +
      " were sent and the rest was there already\npublished at " +
      shown(done.url) + (done.commit.empty() ? "" : ", commit " + done.commit) +
      "\n";
  return report;
}

}  // namespace

Command upload_command() {
  return make_command<UploadOptions>(
      "upload",
      "Publish a finished model folder on the hub",
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit\n"
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit --private "
      "--revision next\n",
      run);
}

}  // namespace pennyweight
