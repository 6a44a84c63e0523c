#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "text/data_use.h"

namespace pennyweight {

/// Why a file holds no text or rows, seen from its beginning.
struct FileProblem {
  ErrorCode code = ErrorCode::corrupt;
  std::string reason;  // a short noun phrase to count by, as in "compressed"
  std::string what;    // "is compressed (gzip); unpack it first"
};

/// Looks at the first 64 KB: compressed files, images and other formats by
/// their first bytes, pointers of Git LFS, UTF-16, bytes that no text has, and
/// what can't be opened. Nothing for a file that may hold text or rows.
std::optional<FileProblem> find_file_problem(const std::filesystem::path& path);

/// Files that may hold text, sorted by path, with the rest noted in `use`
/// under names relative to `folder`.
struct DataFiles {
  std::vector<std::filesystem::path> files;
  DataUse use;
  std::vector<std::string> warnings;
};

/// Of a folder of the user's own: all but hidden files, those that describe
/// the data (README, LICENSE, dataset_infos.json, …) and those that
/// find_file_problem speaks of. io where the folder can't be read.
DataFiles choose_folder_files(const std::filesystem::path& folder);

/// Of a data set in the hub's layout: rows before plain text, the training
/// split where there is one, by the names of files and folders.
DataFiles choose_dataset_files(const std::filesystem::path& folder);

/// Whether a folder is a clone of a hub data set and not just texts: it holds
/// dataset_infos.json or a card with a data set's front matter; or a card,
/// .gitattributes or .git beside files of rows that are named by split
/// (train.jsonl, data/test-00000-of-00001.parquet) and are most of its files.
bool is_dataset_folder(const std::filesystem::path& folder);

/// True for .json, .jsonl, .ndjson and .parquet.
bool is_row_file(const std::filesystem::path& path);

bool is_parquet_name(const std::filesystem::path& path);

/// Also for names of plain text: .txt, .utf8, .md.
bool is_text_name(const std::filesystem::path& path);

}  // namespace pennyweight
