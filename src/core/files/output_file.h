#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace pennyweight {

namespace fs = std::filesystem;

/// A file that the user named for a result (`--json FILE`): looked at before
/// the work, written after it. A regular file appears whole and replaces one
/// that is there only with `force`, by way of a link the one that it names.
/// What is no regular file is written to as it stands: a pipe, a device,
/// /dev/stdout, /dev/fd/N.
class OutputFile {
 public:
  /// `option` is named in errors. invalid_argument for a file that is there
  /// without force, a folder, a link to nothing and a disk; io and not_found
  /// for what can't be created or written to.
  OutputFile(const fs::path& path, bool force, const std::string& option);

  /// io Error that names the file; invalid_argument where it has appeared
  /// since; cancelled where a pipe had no reader until a signal came.
  void write(std::string_view text) const;

  const fs::path& path() const {
    return path_;
  }
  /// Whether both are the same file, whatever their paths.
  bool is(const OutputFile& other) const;

 private:
  enum class Kind { file, stream, descriptor };
  Kind look() const;

  fs::path path_;  // as the user gave it
  fs::path file_;  // links resolved
  int descriptor_ = -1;
  bool force_;
  std::string option_;
  Kind kind_;
};

}  // namespace pennyweight
