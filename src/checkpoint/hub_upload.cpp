#include "checkpoint/hub_upload.h"

#include <algorithm>
#include <set>

#include "checkpoint/hub.h"
#include "core/atomic_file.h"
#include "core/rust_abi.h"
#include "core/rust_progress.h"

extern "C" int32_t pw_hub_upload(
    const uint8_t* folder,
    size_t folder_size,
    const uint8_t* request,
    size_t request_size,
    pennyweight::RustProgress on_hash,
    pennyweight::RustProgress on_send,
    void* context,
    PwBytes* result,
    PwBytes* error);

namespace pennyweight {

namespace fs = std::filesystem;

namespace {

constexpr const char* kWhere = "upload";
constexpr size_t kMaxIndex = size_t{256} << 20;

bool on_hash(
    void* context,
    const uint8_t* name,
    size_t size,
    uint64_t done,
    uint64_t total) {
  return rust_report(context, "checksum", name, size, done, total);
}

bool on_send(
    void* context,
    const uint8_t* name,
    size_t size,
    uint64_t done,
    uint64_t total) {
  return rust_report(context, kWhere, name, size, done, total);
}

[[noreturn]] void refuse(const fs::path& path, const std::string& why) {
  throw Error(
      ErrorCode::invalid_argument, kWhere, one_line(path.string()) + " " + why);
}

[[noreturn]] void lacking(const fs::path& folder, const std::string& what) {
  throw Error(
      ErrorCode::not_found,
      kWhere,
      one_line(folder.string()) + " " + what +
          "; name the finished folder of a model");
}

bool is_inside(const fs::path& path, const fs::path& root) {
  auto [at, unused] = std::ranges::mismatch(root, path);
  return at == root.end();
}

void check_entry(const fs::directory_entry& entry, const fs::path& root) {
  const auto& path = entry.path();
  std::error_code failed;
  if (entry.is_symlink()) {
    auto target = fs::canonical(path, failed);
    if (failed || !is_inside(target, root)) {
      refuse(
          path,
          "is a link that leads outside the folder; put the file itself there");
    }
    if (fs::is_directory(target)) {
      refuse(path, "is a link to a folder; put the files themselves there");
    }
  }
  if (!fs::is_regular_file(path, failed)) {
    refuse(path, "is no regular file; move it away");
  }
}

std::string name_of(const fs::path& path, const fs::path& root) {
  auto name = path.lexically_relative(root).generic_string();
  try {
    Json(name).dump();
  } catch (const nlohmann::json::exception&) {
    refuse(root, "holds a file whose name is not UTF-8; rename it");
  }
  if (std::ranges::any_of(name, [](unsigned char c) {
        return c < 0x20 || c == 0x7f || c == '\\';
      })) {
    refuse(path, "has a name that the hub can't have; rename it");
  }
  return name;
}

void check_weights(const fs::path& folder, const std::set<std::string>& names) {
  if (!names.contains("config.json")) {
    lacking(folder, "has no config.json");
  }
  const std::string index = "model.safetensors.index.json";
  if (!names.contains(index)) {
    if (std::ranges::none_of(names, [](const std::string& name) {
          return name.ends_with(".safetensors");
        })) {
      lacking(folder, "has no weights (*.safetensors)");
    }
    return;
  }
  auto path = folder / index;
  auto json = parse_sorted_json(read_file(path, kMaxIndex), path.string());
  auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) {
    throw Error(
        ErrorCode::corrupt,
        kWhere,
        path.string() + " has no weight_map; write the model anew");
  }
  for (const auto& shard : *map) {
    auto name = shard.is_string() ? shard.get<std::string>() : "";
    if (!names.contains(name)) {
      lacking(
          folder, "lacks " + one_line(name, 120) + ", which its index names");
    }
  }
}

UploadReport report_of(std::string_view text, const ProgressFn& progress) {
  auto json = parse_json(text, "the report of the upload");
  for (const auto& note : json["notes"]) {
    warn(progress, kWhere, one_line(note.get<std::string>(), 600));
  }
  return {
      json["url"],
      one_line(json["commit"].get<std::string>(), 64),
      json["files"],
      json["bytes"],
      json["sent"]};
}

}  // namespace

Json to_json(const UploadReport& report) {
  return {
      {"url", report.url},
      {"commit", report.commit},
      {"files", report.files},
      {"bytes", report.bytes},
      {"sent", report.sent}};
}

std::vector<std::string> files_to_upload(const fs::path& folder) {
  std::error_code failed;
  auto root = fs::canonical(folder, failed);
  if (failed || !fs::is_directory(root)) {
    throw Error(
        ErrorCode::not_found,
        kWhere,
        one_line(folder.string()) + " is not a folder");
  }
  std::set<std::string> names;
  auto options = fs::directory_options::none;  // no links to folders
  fs::recursive_directory_iterator walk(root, options);
  for (; walk != fs::recursive_directory_iterator(); ++walk) {
    std::error_code ignored;  // of a link to itself
    bool folder_itself = walk->is_directory(ignored) && !walk->is_symlink();
    if (walk->path().filename().string().starts_with('.')) {
      if (folder_itself) {
        walk.disable_recursion_pending();
      }
    } else if (!folder_itself) {
      auto name = name_of(walk->path(), root);
      check_entry(*walk, root);
      names.insert(name);
    }
  }
  check_weights(folder, names);
  return {names.begin(), names.end()};
}

UploadReport upload_model(
    const fs::path& folder,
    const UploadOptions& options,
    const ProgressFn& progress) {
  auto name = parse_hub_name(options.repo + "@" + options.revision);
  if (!name || name->id != options.repo) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--repo " + one_line(options.repo, 120) + " and --revision " +
            one_line(options.revision, 120) +
            " must be a hub id such as org/name and a branch such as main");
  }
  Json request{
      {"repo", options.repo},
      {"revision", options.revision},
      {"message", one_line(options.message, 500)},
      {"private", options.make_private},
      {"files", files_to_upload(folder)}};
  auto text =
      request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  auto path = folder.string();
  RustListener listener{progress};
  RustBytes result, error;
  int32_t status = pw_hub_upload(
      rust_data(path),
      path.size(),
      rust_data(text),
      text.size(),
      on_hash,
      on_send,
      &listener,
      result.out(),
      error.out());
  listener.rethrow();
  check_rust(status, error, kWhere, options.repo);
  return report_of(result.view(), progress);
}

}  // namespace pennyweight
