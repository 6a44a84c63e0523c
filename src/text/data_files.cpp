#include "text/data_files.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <system_error>

#include "core/files/atomic_file.h"
#include "core/text.h"

namespace pennyweight {

namespace {

constexpr const char* kAboutData = "that describe the data";

std::string extension_of(const fs::path& path) {
  return lower_case(path.extension().string());
}

std::string name_in(const fs::path& folder, const fs::path& file) {
  return file.lexically_relative(folder).string();
}

/// What publishers lay beside data: its card, its licence, its description.
bool describes_data(const fs::path& path) {
  const std::string name = path.filename().string();
  static const std::set<std::string> names = {
      "dataset_infos.json",
      "dataset_info.json",
      "dataset_dict.json",
      "state.json"};
  return names.contains(name) || name.starts_with("README") ||
      name.starts_with("LICENSE") || name.starts_with("LICENCE");
}

/// All files below `folder`; what is hidden, or can't be looked into, is
/// noted.
void walk(const fs::path& root, const fs::path& folder, DataFiles& found) {
  std::error_code code;
  fs::directory_iterator it(folder, code);
  if (code && folder == root) {
    throw io_error("data", "read", folder.string(), code.value());
  }
  for (; !code && it != fs::directory_iterator(); it.increment(code)) {
    const fs::path& path = it->path();
    std::error_code failed;
    const bool directory = it->is_directory(failed);
    if (path.filename().string().starts_with(".")) {
      found.use.leave_file("hidden", name_in(root, path));
    } else if (directory && it->is_symlink(failed)) {
      found.use.leave_file("that are links to folders", name_in(root, path));
    } else if (directory) {
      walk(root, path, found);
    } else {
      found.files.push_back(path);
    }
  }
  if (code) {
    found.use.leave_file("unreadable", name_in(root, folder), code.message());
  }
}

DataFiles list_files(const fs::path& folder) {
  DataFiles found;
  walk(folder, folder, found);
  std::sort(found.files.begin(), found.files.end());
  return found;
}

/// Moves what can't hold text from `files` to `use`.
void drop_unusable(const fs::path& folder, DataFiles& found) {
  std::erase_if(found.files, [&](const fs::path& path) {
    auto problem = find_file_problem(path);
    if (problem) {
      found.use.leave_file(
          problem->reason, name_in(folder, path), problem->what);
    }
    return problem.has_value();
  });
}

/// "train", "train-00000-of-00001", "validation_matched", …
bool is_named_by_split(const fs::path& path) {
  const std::string stem = lower_case(path.stem().string());
  for (const char* split :
       {"train", "test", "validation", "valid", "val", "dev", "eval"}) {
    const std::string name = split;
    if (stem.starts_with(name) &&
        (stem.size() == name.size() ||
         !std::isalpha(static_cast<unsigned char>(stem[name.size()])))) {
      return true;
    }
  }
  return false;
}

/// The YAML before a card's text has a key that data sets' cards have.
bool has_dataset_card(const fs::path& folder) {
  std::error_code code;
  const fs::path card = folder / "README.md";
  if (!fs::is_regular_file(card, code)) {
    return false;
  }
  std::string text;
  try {
    text = read_file(card, size_t{16} << 20);
  } catch (const Error&) {
    return false;
  }
  if (!text.starts_with("---")) {
    return false;
  }
  const size_t end = text.find("\n---", 3);
  const std::string front = text.substr(0, end);
  for (const char* key :
       {"\nconfigs:",
        "\ndataset_info:",
        "\ntask_categories:",
        "\nsize_categories:",
        "\nlicense:",
        "\nlanguage:",
        "\npretty_name:"}) {
    if (end != std::string::npos && front.find(key) != std::string::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool is_row_file(const fs::path& path) {
  std::string extension = extension_of(path);
  return extension == ".json" || extension == ".jsonl" ||
      extension == ".ndjson" || extension == ".parquet";
}

bool is_parquet_name(const fs::path& path) {
  return extension_of(path) == ".parquet";
}

bool is_text_name(const fs::path& path) {
  std::string extension = extension_of(path);
  return extension == ".txt" || extension == ".utf8" || extension == ".md" ||
      is_row_file(path);
}

DataFiles choose_folder_files(const fs::path& folder) {
  DataFiles found = list_files(folder);
  std::erase_if(found.files, [&](const fs::path& path) {
    const bool about = describes_data(path);
    if (about) {
      found.use.leave_file(kAboutData, name_in(folder, path));
    }
    return about;
  });
  drop_unusable(folder, found);
  return found;
}

DataFiles choose_dataset_files(const fs::path& folder) {
  DataFiles found = list_files(folder);
  found.use = {};  // a repository's own files
  std::erase_if(found.files, describes_data);
  const std::vector<fs::path> all = found.files;
  auto keep = [](std::vector<fs::path>& files, auto&& test) {
    std::vector<fs::path> kept;
    std::copy_if(files.begin(), files.end(), std::back_inserter(kept), test);
    const bool some = !kept.empty();
    files = some ? std::move(kept) : files;
    return some;
  };
  if (!keep(found.files, is_row_file) && !keep(found.files, is_text_name)) {
    found.files.clear();
  }
  for (const fs::path& path : all) {
    if (!std::binary_search(found.files.begin(), found.files.end(), path)) {
      const auto problem = find_file_problem(path);
      found.use.leave_file(
          problem ? problem->reason : "that hold no rows",
          name_in(folder, path),
          problem ? problem->what : "");
    }
  }
  const size_t count = found.files.size();
  keep(found.files, [&](const fs::path& path) {
    return name_in(folder, path).find("train") != std::string::npos;
  });
  if (found.files.size() < count) {
    found.warnings.push_back(
        "of the data set's " + std::to_string(count) +
        " files only those of the training split are used: " +
        std::to_string(found.files.size()));
  }
  drop_unusable(folder, found);
  return found;
}

bool is_dataset_folder(const fs::path& folder) {
  std::error_code code;
  if (fs::exists(folder / "dataset_infos.json", code)) {
    return true;
  }
  const bool published = fs::exists(folder / "README.md", code) ||
      fs::exists(folder / ".gitattributes", code) ||
      fs::exists(folder / ".git", code);
  if (!published) {
    return false;
  }
  size_t rows = 0;
  size_t others = 0;
  bool split = false;
  for (const fs::path& path : list_files(folder).files) {
    if (describes_data(path)) {
      continue;
    }
    if (!is_row_file(path)) {
      ++others;
      continue;
    }
    ++rows;
    split = split || is_named_by_split(path);
  }
  if (rows == 0) {
    return false;
  }
  return has_dataset_card(folder) || (split && rows >= others);
}

}  // namespace pennyweight
