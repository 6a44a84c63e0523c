#include "text/data_source.h"

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/hub_name.h"
#include "text/data_files.h"
#include "text/default_text.h"

namespace pennyweight {

namespace {

constexpr int kMaxLength = 1 << 20;

using Kind = DataSource::Kind;

DataSource self_source(std::vector<std::string> warnings = {}) {
  return {
      Kind::self, "", "", "self (sampled from the model)", std::move(warnings)};
}

DataSource default_source(bool self) {
  const std::string lead =
      "no --data-path, and mlx-lm's calibration text can't be had: ";
  try {
    return {
        Kind::text,
        "",
        read_default_text(),
        "mlx-lm's calibration text (calibration_v5)",
        {"no --data-path: mlx-lm's calibration text is used"}};
  } catch (const Error& error) {
    // A damaged copy in the cache is the user's to remove.
    if (error.code() != ErrorCode::not_found) {
      throw;
    }
    if (!self) {
      throw Error(error.code(), "data", lead + reason_of(error));
    }
    return self_source(
        {lead + reason_of(error) + "; text is sampled from the model"});
  }
}

DataSource path_source(
    const std::string& path,
    const FetchDatasetFn& fetch_dataset) {
  if (fs::is_directory(path)) {
    const bool dataset = is_dataset_folder(path);
    return {dataset ? Kind::dataset : Kind::folder, path, "", path, {}};
  }
  if (fs::exists(path)) {
    return {Kind::file, path, "", path, {}};
  }
  if (!is_dataset_id(path)) {
    throw not_found_error(
        "data",
        path +
            " does not exist; --data-path is a file, a folder, a hub data "
            "set org/name, or self");
  }
  if (!fetch_dataset) {
    throw not_supported_error(
        "data", path + " is no file, and hub data sets can't be fetched here");
  }
  const auto folder = fetch_dataset(path).string();
  return {Kind::dataset, folder, "", "data set " + path, {}};
}

void check(const LoadDataOptions& options) {
  if (options.sequence_length < 2 || options.sequence_length > kMaxLength) {
    throw argument_error(
        "data",
        "--sequence-length must lie between 2 and " +
            std::to_string(kMaxLength));
  }
  if (options.num_samples == 0 || options.num_samples < -1) {
    throw argument_error(
        "data", "--num-samples must be at least 1, or -1 for all");
  }
}

}  // namespace

bool is_dataset_id(const std::string& text) {
  return parse_hub_name(text) && !is_text_name(text);
}

DataSource find_source(
    const LoadDataOptions& options,
    bool self,
    const FetchDatasetFn& fetch_dataset) {
  check(options);
  if (options.data_path.empty()) {
    return default_source(self);
  }
  if (options.data_path != "self") {
    return path_source(options.data_path, fetch_dataset);
  }
  if (!self) {
    throw not_supported_error(
        "data", "text can't be sampled from the model here; give --data-path");
  }
  return self_source();
}

}  // namespace pennyweight
