#include "run/check_output.h"

#include <algorithm>
#include <system_error>

#include "checkpoint/weight_index.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/files/wrong_file.h"
#include "export/front_matter.h"
#include "export/mtp.h"
#include "export/side_files.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

namespace fs = std::filesystem;

void check_tokenizer(
    const std::string& where,
    const fs::path& folder,
    const SideFiles& files,
    const ProgressFn& progress) {
  std::error_code ignored;
  if (fs::exists(folder / "tokenizer.json", ignored)) {
    TextReader{folder};  // for its errors
    return;
  }
  std::vector<std::string> names;
  for (const auto& name : files.names) {
    if (is_tokenizer_file(name)) {
      names.push_back(name);
    }
  }
  if (names.empty()) {
    warn(
        progress,
        where,
        "the model has no tokenizer; the output needs one to be of use");
    return;
  }
  for (const auto& name : names) {
    if (const auto wrong = wrong_file(beginning_of(folder / name, 512))) {
      throw corrupt_error(where, (folder / name).string() + " " + *wrong);
    }
  }
  warn(
      progress,
      where,
      "the model has no tokenizer.json; " + some_of(names, 5) +
          (names.size() > 1 ? " are" : " is") + " carried unchecked");
}

}  // namespace

void check_source(
    const std::string& where,
    const fs::path& model,
    const ProgressFn& progress) {
  const auto files = list_side_files(model);
  check_tokenizer(where, model, files, progress);
  if (!has_mtp_file(model) && fs::exists(model / kMtpFile)) {
    warn(
        progress,
        where,
        std::string(kMtpFile) +
            " is no file of the model's folder: it is not carried");
  }
  for (const auto& text : files.warnings) {
    warn(progress, where, text);
  }
  for (const auto& key : read_front_matter(model / "README.md").dropped) {
    warn(
        progress,
        where,
        "the model's README.md gives a " + key +
            " that can't be read; the output's names none, add it by hand");
  }
}

void check_folders(
    const std::string& where,
    const fs::path& model,
    const fs::path& output,
    bool force,
    bool first,
    const ProgressFn& progress) {
  check_output(where, model, output);
  if (first) {
    AtomicFolder(output, force);
  }
  check_source(where, model, progress);
}

void check_output(
    const std::string& where,
    const std::filesystem::path& model,
    const std::filesystem::path& output) {
  if (output.empty()) {
    throw argument_error(where, "--mlx-path is empty; name a folder");
  }
  std::error_code ignored;
  std::error_code error;
  auto from = std::filesystem::weakly_canonical(model, ignored);
  auto to = std::filesystem::weakly_canonical(output, error);
  if (error) {
    throw io_error(where, "can't look at", output.string(), error.value());
  }
  auto [end, unused] =
      std::mismatch(to.begin(), to.end(), from.begin(), from.end());
  if (end == to.end()) {
    throw argument_error(
        where,
        "the output " + output.string() +
            " is the model itself or holds it; choose another --mlx-path");
  }
}

}  // namespace pennyweight
