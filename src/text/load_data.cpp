#include "text/load_data.h"

#include <algorithm>

#include "core/atomic_file.h"
#include "text/default_text.h"
#include "text/rows.h"
#include "text/token_pool.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "data";
/// Tokens of a gigabyte of text would not fit beside a model.
constexpr size_t kTextLimit = size_t{512} << 20;
/// Sequences sampled from the model where no number was asked for.
constexpr int kSelfSamples = 128;
constexpr int kMaxLength = 1 << 20;

class Loader {
 public:
  Loader(
      const Tokenizer& tokenizer,
      const LoadDataOptions& options,
      const ProgressFn& progress)
      : options_(options),
        progress_(progress),
        pool_(tokenizer, options.sequence_length) {}

  void add_text(const std::string& text) {
    if (!admit(text.size())) {
      return;
    }
    pool_.add_text(text);
    pool_.end_file();
    tick();
  }

  void add_file(const fs::path& path) {
    if (!is_row_file(path)) {
      add_text(read_text(path));
      return;
    }
    read_rows(path, [this](Row row) {
      if (row.messages.is_null()) {
        if (!admit(row.text.size())) {
          return false;
        }
        pool_.add_text(row.text);
      } else {
        pool_.add_chat(row.messages);
      }
      tick();
      return true;
    });
    pool_.end_file();
  }

  void warn(const std::string& message) {
    warnings_.push_back(message);
  }

  TokenData take(const std::string& name) {
    TokenData data = pool_.take(options_, name);
    data.warnings.insert(
        data.warnings.begin(), warnings_.begin(), warnings_.end());
    return data;
  }

 private:
  bool admit(size_t bytes) {
    if (bytes_ + bytes <= kTextLimit) {
      bytes_ += bytes;
      return true;
    }
    if (!full_) {
      full_ = true;
      warn(
          "the data holds more than " + std::to_string(kTextLimit >> 20) +
          " MB of text; the rest is left out");
    }
    return false;
  }

  void tick() {
    report(progress_, {"data", pool_.tokens(), 0, "tokens", "", false});
  }

  const LoadDataOptions& options_;
  const ProgressFn& progress_;
  TokenPool pool_;
  std::vector<std::string> warnings_;
  size_t bytes_ = 0;
  bool full_ = false;
};

}  // namespace

std::vector<fs::path> list_data_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code code;
  fs::recursive_directory_iterator it(folder, code);
  for (; !code && it != fs::recursive_directory_iterator();
       it.increment(code)) {
    if (it->path().filename().string().starts_with(".")) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file(code)) {
      files.push_back(it->path());
    }
  }
  if (code) {
    throw io_error(kWhere, "read", folder.string(), code.value());
  }
  std::sort(files.begin(), files.end());
  return files;
}

namespace {

bool is_text_name(const fs::path& path) {
  std::string extension = path.extension().string();
  return extension == ".txt" || extension == ".utf8" || extension == ".md" ||
      is_row_file(path);
}

/// `org/name` and not the path of a file.
bool is_hub_id(const std::string& text) {
  size_t slash = text.find('/');
  bool allowed = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '/' || c == '-' || c == '_' || c == '.';
  });
  return allowed && slash != 0 && slash + 1 < text.size() &&
      slash != std::string::npos && slash == text.rfind('/') &&
      text.front() != '.' && !is_text_name(text);
}

/// What of a hub data set is its text: rows before plain text (which is where
/// the README lies), the training split where there is one.
std::vector<fs::path> dataset_files(const fs::path& folder, Loader& loader) {
  std::vector<fs::path> all = list_data_files(folder);
  std::vector<fs::path> files;
  auto keep = [&](auto&& test) {
    files.clear();
    std::copy_if(all.begin(), all.end(), std::back_inserter(files), test);
    return !files.empty();
  };
  keep([](const fs::path& path) {
    std::string name = path.filename().string();
    return is_row_file(path) && name != "dataset_infos.json" &&
        name != "dataset_dict.json" && name != "state.json" &&
        name != "dataset_info.json";
  }) ||
      keep([](const fs::path& path) {
        std::string name = path.filename().string();
        return is_text_name(path) && !name.starts_with("README") &&
            !name.starts_with("LICENSE");
      });
  all = files;
  if (keep([&](const fs::path& path) {
        return fs::relative(path, folder).string().find("train") !=
            std::string::npos;
      }) &&
      files.size() < all.size()) {
    loader.warn(
        "of the data set's " + std::to_string(all.size()) +
        " files only those of the training split are used: " +
        std::to_string(files.size()));
    return files;
  }
  return all;
}

TokenData load_self(
    const LoadDataOptions& options,
    const SampleSelfFn& sample_self,
    std::vector<std::string> warnings) {
  if (!sample_self) {
    throw Error(
        ErrorCode::not_supported,
        kWhere,
        "text can't be sampled from the model here; give --data-path");
  }
  int count = options.num_samples < 0 ? kSelfSamples : options.num_samples;
  TokenData data;
  data.sequences = sample_self(count, options.sequence_length, options.seed);
  data.sequence_length = options.sequence_length;
  data.source = "self (sampled from the model)";
  data.sources = static_cast<int64_t>(data.sequences.size());
  for (const auto& sequence : data.sequences) {
    data.tokens += static_cast<int64_t>(sequence.size());
  }
  if (data.tokens == 0) {
    throw Error(ErrorCode::invalid_argument, kWhere, "the model gave no text");
  }
  data.warnings = std::move(warnings);
  return data;
}

TokenData load_default(
    Loader& loader,
    const LoadDataOptions& options,
    const SampleSelfFn& sample_self) {
  DefaultText found;
  try {
    found = read_default_text();
  } catch (const Error& error) {
    // A damaged copy in the cache is the user's to remove.
    if (!sample_self ||
        (error.code() != ErrorCode::io &&
         error.code() != ErrorCode::not_found)) {
      throw;
    }
    return load_self(
        options,
        sample_self,
        {"no --data-path, and mlx-lm's calibration text can't be had (" +
         std::string(error.what()) + "): text is sampled from the model"});
  }
  loader.warn("no --data-path: mlx-lm's calibration text is used");
  if (!found.warning.empty()) {
    loader.warn(found.warning);
  }
  loader.add_text(found.text);
  return loader.take("mlx-lm's calibration text (calibration_v5)");
}

TokenData load_path(
    Loader& loader,
    const std::string& path,
    const FetchDatasetFn& fetch_dataset) {
  if (fs::is_directory(path)) {
    for (const fs::path& file : list_data_files(path)) {
      loader.add_file(file);
    }
    return loader.take(path);
  }
  if (fs::exists(path)) {
    loader.add_file(path);
    return loader.take(path);
  }
  if (!is_hub_id(path)) {
    throw Error(
        ErrorCode::not_found,
        kWhere,
        path +
            " does not exist; --data-path is a file, a folder, a hub data "
            "set org/name, or self");
  }
  if (!fetch_dataset) {
    throw Error(
        ErrorCode::not_supported,
        kWhere,
        path + " is no file, and hub data sets can't be fetched here");
  }
  for (const fs::path& file : dataset_files(fetch_dataset(path), loader)) {
    loader.add_file(file);
  }
  return loader.take("data set " + path);
}

void check(const LoadDataOptions& options) {
  if (options.sequence_length < 2 || options.sequence_length > kMaxLength) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--sequence-length must lie between 2 and " +
            std::to_string(kMaxLength));
  }
  if (options.num_samples == 0 || options.num_samples < -1) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--num-samples must be at least 1, or -1 for all");
  }
}

}  // namespace

TokenData load_data(
    const Tokenizer& tokenizer,
    const LoadDataOptions& options,
    const SampleSelfFn& sample_self,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  check(options);
  Loader loader(tokenizer, options, progress);
  TokenData data;
  if (options.data_path == "self") {
    data = load_self(options, sample_self, {});
  } else if (options.data_path.empty()) {
    data = load_default(loader, options, sample_self);
  } else {
    data = load_path(loader, options.data_path, fetch_dataset);
  }
  for (const std::string& warning : data.warnings) {
    warn(progress, kWhere, warning);
  }
  return data;
}

}  // namespace pennyweight
