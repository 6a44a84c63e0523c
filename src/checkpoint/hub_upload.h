#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "core/progress.h"

namespace pennyweight {

struct UploadOptions {
  std::string folder;
  std::string repo;
  bool make_private = false;
  std::string revision = "main";
  std::string message = "Upload model with pennyweight";

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "folder",
         .help = "Finished folder of a model",
         .positional = true,
         .required = true},
        self.folder);
    option(
        {.name = "repo",
         .help = "Repository org/name of the hub; made where there is none",
         .required = true},
        self.repo);
    option(
        {.name = "private",
         .help = "Make it private; an existing one must be so already"},
        self.make_private);
    option({.name = "revision", .help = "Branch to commit to"}, self.revision);
    option(
        {.name = "commit-message", .help = "First line of the commit"},
        self.message);
  }
};

struct UploadReport {
  std::string url;
  std::string commit;
  int64_t files = 0;
  int64_t bytes = 0;  // of all files
  int64_t sent = 0;   // of those that the hub did not have
};

Json to_json(const UploadReport& report);

/// What of a folder is uploaded: all regular files but hidden ones, by their
/// names below it, sorted. not_found for a folder that is no finished model (no
/// config.json, no weights, a shard missing that the index names);
/// invalid_argument for a link that leads outside, a link to a folder, what is
/// no file, and names that the hub could not have.
std::vector<std::string> files_to_upload(const std::filesystem::path& folder);

/// Publishes a model folder on the hub as one commit. HF_ENDPOINT, HF_TOKEN (or
/// the token file) and HF_HUB_OFFLINE mean what they mean to huggingface_hub;
/// the token goes to the hub's own address only. Files are streamed from disk,
/// large ones to the hub's store; what is there already is not sent again, so
/// that an upload that was cut goes on. Other files of the repository stay.
/// io for a network, token or hub that refuses, not_found for a repository or
/// branch, invalid_argument for what the hub can't take.
UploadReport upload_model(
    const std::filesystem::path& folder,
    const UploadOptions& options,
    const ProgressFn& progress = {});

}  // namespace pennyweight
