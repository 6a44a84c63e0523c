#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "text/load_data.h"

namespace pennyweight {

/// What --data-path stands for, found without reading any of it.
struct DataSource {
  enum class Kind { self, text, file, folder, dataset };

  Kind kind = Kind::text;
  /// Of a file, a folder, or a data set that has been fetched.
  std::string path;
  /// All of it, for Kind::text.
  std::string text;
  /// In words, for a report.
  std::string name;
  std::vector<std::string> warnings;
};

/// `org/name[@revision]` and not the path of a file.
bool is_dataset_id(const std::string& text);

/// `self`: whether text can be sampled from the model. invalid_argument for
/// options out of range, and the errors that load_data has for a path.
DataSource find_source(
    const LoadDataOptions& options,
    bool self,
    const FetchDatasetFn& fetch_dataset);

}  // namespace pennyweight
