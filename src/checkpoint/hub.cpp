#include "checkpoint/hub.h"

#include <algorithm>
#include <cctype>

#include "core/rust_abi.h"
#include "core/rust_progress.h"

extern "C" int32_t pw_hub_snapshot(
    const uint8_t* id,
    size_t id_size,
    bool dataset,
    const uint8_t* revision,
    size_t revision_size,
    pennyweight::RustProgress call,
    void* context,
    PwBytes* folder,
    PwBytes* note,
    PwBytes* error);

namespace pennyweight {

namespace {

constexpr const char* kWhere = "hub";

bool on_progress(
    void* context,
    const uint8_t* name,
    size_t size,
    uint64_t done,
    uint64_t total) {
  return rust_report(context, "fetch", name, size, done, total);
}

bool is_word(std::string_view text, const char* extra) {
  return !text.empty() && text.size() <= 200 && text.front() != '.' &&
      std::ranges::all_of(text, [extra](unsigned char c) {
        return std::isalnum(c) ||
            std::string_view(extra).find(static_cast<char>(c)) !=
            std::string_view::npos;
      });
}

std::filesystem::path
resolve(const std::string& text, bool dataset, const ProgressFn& progress) {
  std::error_code ignored;
  if (std::filesystem::is_directory(text, ignored)) {
    return text;
  }
  auto name = parse_hub_name(text);
  if (!name || std::filesystem::exists(text, ignored)) {
    throw Error(
        ErrorCode::not_found,
        kWhere,
        one_line(text, 200) +
            " is neither a folder nor a hub id such as org/name[@revision]");
  }
  RustListener listener{progress};
  RustBytes folder, note, error;
  int32_t status = pw_hub_snapshot(
      rust_data(name->id),
      name->id.size(),
      dataset,
      rust_data(name->revision),
      name->revision.size(),
      on_progress,
      &listener,
      folder.out(),
      note.out(),
      error.out());
  listener.rethrow();
  check_rust(status, error, kWhere, text);
  if (!note.view().empty()) {
    warn(progress, kWhere, one_line(text) + ": " + std::string(note.view()));
  }
  return std::string(folder.view());
}

}  // namespace

std::optional<HubName> parse_hub_name(const std::string& text) {
  auto at = text.find('@');
  HubName name{.id = text.substr(0, at)};
  auto slash = name.id.find('/');
  if (slash == std::string::npos ||
      !is_word(std::string_view(name.id).substr(0, slash), "-_.") ||
      !is_word(std::string_view(name.id).substr(slash + 1), "-_.")) {
    return std::nullopt;
  }
  if (at != std::string::npos) {
    name.revision = text.substr(at + 1);
    if (!is_word(name.revision, "-_./") ||
        name.revision.find("..") != std::string::npos) {
      return std::nullopt;
    }
  }
  return name;
}

std::filesystem::path resolve_model(
    const std::string& model,
    const ProgressFn& progress) {
  return resolve(model, false, progress);
}

std::filesystem::path resolve_dataset(
    const std::string& id,
    const ProgressFn& progress) {
  return resolve(id, true, progress);
}

}  // namespace pennyweight
