#include "export/side_files.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/files/wrong_file.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

namespace {

constexpr uintmax_t kMaxSideFile = uintmax_t{1} << 30;
constexpr size_t kBeginning = 512;  // shows what a file is
constexpr const char* kTemplates = "additional_chat_templates";

bool ends_with_any(
    const std::string& name,
    std::initializer_list<const char*> endings) {
  return std::ranges::any_of(
      endings, [&](const char* ending) { return name.ends_with(ending); });
}

// `tokenizer.model`, `spiece.model`, `tokenizer.model.v3`.
bool is_sentencepiece(const std::string& name) {
  if (name.ends_with(".model")) {
    return true;
  }
  const auto at = name.rfind(".model.v");
  return at != std::string::npos && at + 8 < name.size() &&
      std::ranges::all_of(name.substr(at + 8), [](unsigned char c) {
           return std::isalnum(c) != 0;
         });
}

bool belongs(const std::string& name) {
  // Another quantizer's settings would speak of weights that are not there.
  static const std::set<std::string> kOthers{
      "config.json",
      "hf_quant_config.json",
      "quantize_config.json",
      "quant_config.json",
      "adapter_config.json",
      "trainer_state.json",
  };
  const auto lower = lower_case(name);
  if (name.starts_with(".") || kOthers.contains(name) ||
      name.ends_with(".index.json") || lower.starts_with("readme") ||
      lower.starts_with("license") || lower.starts_with("licence")) {
    return false;
  }
  return is_sentencepiece(name) ||
      ends_with_any(
             name, {".json", ".py", ".txt", ".jsonl", ".jinja", ".tiktoken"});
}

// Why a file can't be carried.
std::optional<std::string> obstacle(const fs::path& path) {
  std::error_code failed;
  const auto kind = fs::status(path, failed).type();
  if (kind == fs::file_type::not_found ||
      failed == std::errc::too_many_symbolic_link_levels) {
    return "is a link to nothing";
  }
  if (failed) {
    return "can't be read (" + failed.message() + ")";
  }
  if (kind != fs::file_type::regular) {
    return "is no regular file";
  }
  if (const auto size = fs::file_size(path, failed); size > kMaxSideFile) {
    return "is larger than 1 GiB";
  }
  if (::access(path.c_str(), R_OK) != 0) {
    return std::string("can't be read (") + std::strerror(errno) + ")";
  }
  return std::nullopt;
}

// What is odd about a file that is carried all the same.
std::optional<std::string> oddity(const fs::path& path) {
  if (path.extension() == ".json") {
    const auto text = read_file(path, kMaxSideFile);
    if (is_python_json(text)) {
      return std::nullopt;
    }
    const auto wrong = wrong_file(text);
    return wrong ? *wrong : "is not valid JSON";
  }
  const auto start = beginning_of(path, kBeginning);
  // Empty texts and code (__init__.py) are common, and as they should be.
  return start.empty() ? std::nullopt : wrong_file(start);
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [at, unused] = std::ranges::mismatch(folder, path);
  return at == folder.end();
}

// Whether a model's folder owns what lies at a path. A snapshot in the hub's
// cache owns its repository's folder, models--org--name, and the store beside
// it, where huggingface_hub keeps what repositories share.
bool owns(const fs::path& folder, const fs::path& path) {
  const auto snapshots = folder.parent_path();
  const auto repository = snapshots.parent_path();
  const bool cached = snapshots.filename() == "snapshots" &&
      repository.filename().string().starts_with("models--");
  return is_inside(path, folder) ||
      (cached &&
       (is_inside(path, repository) ||
        is_inside(path, repository.parent_path() / "blobs")));
}

// What says how text becomes tokens: an output is of no use without it, or
// worse, of another.
bool is_needed(const std::string& name) {
  static const std::set<std::string> kNames{
      "tokenizer_config.json",
      "special_tokens_map.json",
      "added_tokens.json",
      "chat_template.json"};
  return is_tokenizer_file(name) || kNames.contains(name) ||
      name.ends_with(".jinja");
}

void add(SideFiles& files, const fs::path& folder, const std::string& name) {
  const auto shown = pennyweight::shown(name);
  if (const auto target = leads_out(folder, name)) {
    const auto what = shown + " is a link that leads out of the folder, to " +
        target->string();
    if (is_needed(name)) {
      throw argument_error(
          "export",
          folder.string() + ": " + what + "; copy that file into the folder");
    }
    files.warnings.push_back(what + ": it is not carried");
    return;
  }
  if (const auto why = obstacle(folder / name)) {
    files.warnings.push_back(shown + " " + *why + ": it is not carried");
    return;
  }
  files.names.push_back(name);
  try {
    if (const auto why = oddity(folder / name)) {
      files.warnings.push_back(shown + " " + *why + "; carried as it is");
    }
  } catch (const Error& error) {
    files.names.pop_back();
    files.warnings.push_back(shown + " can't be read: it is not carried");
  }
}

}  // namespace

SideFiles list_side_files(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (auto name = entry.path().filename().string(); belongs(name)) {
      names.insert(name);
    }
  }
  if (failed) {
    throw io_error("export", "can't read", folder.string(), failed.value());
  }
  std::error_code ignored;
  if (fs::is_directory(folder / kTemplates, ignored)) {
    for (const auto& entry :
         fs::directory_iterator(folder / kTemplates, ignored)) {
      const auto name = entry.path().filename().string();
      if (!name.starts_with(".") && name.ends_with(".jinja")) {
        names.insert(std::string(kTemplates) + "/" + name);
      }
    }
  }
  SideFiles files;
  for (const auto& name : names) {
    add(files, folder, name);
  }
  return files;
}

std::vector<std::string> copy_side_files(
    const SideFiles& files,
    const fs::path& from,
    const fs::path& to) {
  std::vector<std::string> copied;
  for (const auto& name : files.names) {
    const auto target = to / name;
    std::error_code failed;
    if (!fs::is_regular_file(from / name, failed) || leads_out(from, name)) {
      continue;
    }
    fs::create_directories(target.parent_path(), failed);
    copy_whole_file(from / name, target);
    copied.push_back(name);
  }
  return copied;
}

std::optional<fs::path> leads_out(
    const fs::path& folder,
    const std::string& name) {
  std::error_code failed;
  const auto home = fs::canonical(folder, failed);
  const auto target = fs::canonical(folder / name, failed);
  // A link to nothing leads nowhere.
  if (failed || owns(home, target)) {
    return std::nullopt;
  }
  return target;
}

bool is_tokenizer_file(const std::string& name) {
  static const std::set<std::string> kNames{
      "tokenizer.json", "tekken.json", "vocab.json", "vocab.txt", "merges.txt"};
  return kNames.contains(name) || is_sentencepiece(name) ||
      name.ends_with(".tiktoken");
}

}  // namespace pennyweight
