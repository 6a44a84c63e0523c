#include "checkpoint/hub.h"

#include <algorithm>
#include <cctype>
#include <exception>

#include "core/rust_abi.h"

extern "C" int32_t pw_hub_snapshot(
    const uint8_t* id,
    size_t id_size,
    bool dataset,
    const uint8_t* revision,
    size_t revision_size,
    bool (*call)(void*, const uint8_t*, size_t, uint64_t, uint64_t),
    void* context,
    PwBytes* folder,
    PwBytes* note,
    PwBytes* error);

namespace pennyweight {

namespace {

constexpr const char* kWhere = "hub";

// Exceptions can't cross the Rust side: they wait here.
struct Listener {
  const ProgressFn& progress;
  std::exception_ptr thrown{};
};

bool on_progress(
    void* context,
    const uint8_t* name,
    size_t size,
    uint64_t done,
    uint64_t total) {
  auto* listener = static_cast<Listener*>(context);
  try {
    std::string file(reinterpret_cast<const char*>(name), size);
    report(
        listener->progress,
        {"fetch",
         static_cast<int64_t>(done),
         static_cast<int64_t>(total),
         "bytes",
         file});
    return true;
  } catch (...) {
    listener->thrown = std::current_exception();
    return false;
  }
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
  Listener listener{progress};
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
  if (listener.thrown) {
    std::rethrow_exception(listener.thrown);
  }
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
