#include "checkpoint/hub_upload.h"

#include "cli/command.h"

namespace pennyweight::cli {

namespace {

std::string describe(const UploadReport& report) {
  auto bytes = [](int64_t count) {
    return human_bytes(static_cast<double>(count));
  };
  return std::to_string(report.files) + " files, " + bytes(report.bytes) +
      ", of which " + bytes(report.sent) +
      " were sent and the rest was there already\npublished at " +
      shown(report.url) +
      (report.commit.empty() ? "" : ", commit " + report.commit) + "\n";
}

}  // namespace

Command upload_command() {
  return {
      "upload",
      "Publish a finished model folder on the hub",
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit\n"
      "  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit --private "
      "--revision next\n",
      [](CLI::App& app) {
        auto options = std::make_shared<UploadOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          auto report =
              upload_model(options->folder, *options, console.progress());
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
