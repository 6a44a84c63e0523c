#include "text/load_data.h"

#include <algorithm>
#include <optional>

#include "core/atomic_file.h"
#include "text/data_files.h"
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
    ++use_.files;
    use_.lines += std::count(text.begin(), text.end(), '\n') +
        (text.empty() || text.ends_with('\n') ? 0 : 1);
    tick();
  }

  /// The path is this file: what is wrong with it is an error.
  void add_single_file(const fs::path& path) {
    if (const auto problem = find_file_problem(path)) {
      throw Error(problem->code, kWhere, path.string() + " " + problem->what);
    }
    root_ = (path.parent_path() / "").string();
    add_file(path);
  }

  void add_files(const fs::path& folder, DataFiles found) {
    root_ = (folder / "").string();
    use_.add(found.use);
    warnings_.insert(
        warnings_.end(), found.warnings.begin(), found.warnings.end());
    for (const fs::path& file : found.files) {
      try {
        add_file(file);
      } catch (const Error& error) {
        pool_.end_file();
        leave_file(file, error);
      }
    }
  }

  void warn(const std::string& message) {
    warnings_.push_back(message);
  }

  TokenData take(const std::string& name) {
    if (options_.judged) {
      require_half(use_, name);
    }
    auto left_out = use_.warnings();
    if (pool_.tokens() == 0 && !options_.judged) {
      TokenData none;
      none.warnings = std::move(left_out);
      none.use = std::move(use_);
      return none;
    }
    if (pool_.tokens() == 0 && !left_out.empty()) {
      throw Error(
          ErrorCode::invalid_argument,
          kWhere,
          name + " holds no text that can be used; " + left_out.back() +
              (left_out.size() > 1 ? "; " + left_out.front() : ""));
    }
    TokenData data = pool_.take(options_, name);
    warnings_.insert(warnings_.end(), left_out.begin(), left_out.end());
    data.warnings.insert(
        data.warnings.begin(), warnings_.begin(), warnings_.end());
    data.use = std::move(use_);
    return data;
  }

 private:
  void add_file(const fs::path& path) {
    if (!is_row_file(path)) {
      add_text(read_text(path));
      return;
    }
    read_rows(
        path,
        [this](Row row) { return add_row(row); },
        [this](const RowError& error) {
          use_.leave_row(
              error.reason(), short_name(error.where()), error.detail());
        });
    pool_.end_file();
    ++use_.files;
  }

  bool add_row(const Row& row) {
    std::optional<RowRefusal> refusal;
    if (!row.messages.is_null()) {
      refusal = pool_.add_chat(row.messages);
    } else if (row.text.empty()) {
      refusal = RowRefusal{kEmptyText, ""};
    } else if (admit(row.text.size())) {
      pool_.add_text(row.text);
    } else {
      return false;
    }
    if (refusal) {
      use_.leave_row(refusal->reason, short_name(row.where), refusal->detail);
    } else {
      ++use_.rows;
    }
    tick();
    return true;
  }

  void leave_file(const fs::path& file, const Error& error) {
    if (error.code() == ErrorCode::cancelled) {
      throw error;
    }
    const std::string_view text = error.what();
    const bool encoding = text.find("not valid UTF-8") != text.npos;
    use_.leave_file(
        error.code() == ErrorCode::io ? "unreadable"
            : encoding                ? "not UTF-8"
                                      : "without rows that can be read",
        short_name(file.string()),
        said_of(file.string(), error));
  }

  /// An error's text without where it comes from and the file it names first.
  static std::string said_of(const std::string& file, const Error& error) {
    std::string text = error.what();
    if (const size_t end = text.find("] "); text.starts_with("[")) {
      text.erase(0, end == std::string::npos ? 0 : end + 2);
    }
    text.erase(0, text.starts_with(file) ? file.size() : 0);
    const size_t start = text.find_first_not_of(" :,");
    return text.substr(std::min(start, text.size()));
  }

  /// Without the folder that --data-path names already, or lies in.
  std::string short_name(const std::string& where) const {
    return !root_.empty() && where.starts_with(root_)
        ? where.substr(root_.size())
        : where;
  }

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
  DataUse use_;
  std::string root_;
  size_t bytes_ = 0;
  bool full_ = false;
};

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
    loader.add_files(
        path,
        is_dataset_folder(path) ? choose_dataset_files(path)
                                : choose_folder_files(path));
    return loader.take(path);
  }
  if (fs::exists(path)) {
    loader.add_single_file(path);
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
  const fs::path folder = fetch_dataset(path);
  loader.add_files(folder, choose_dataset_files(folder));
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
