#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace pennyweight {

/// What belongs to a model beside its weights and config.
struct SideFiles {
  std::vector<std::string> names;     // below the folder, sorted
  std::vector<std::string> warnings;  // each names its file
};

/// What an output carries of a model's folder: what mlx-lm fetches beside
/// weights (`*.json *.py *.txt *.jsonl *.jinja *.tiktoken`, mlx_lm/utils.py)
/// and SentencePiece models under any name (`*.model`, `tokenizer.model.v3`),
/// with transformers' `additional_chat_templates/`. Code is carried as a file,
/// and never run. Not carried: config.json, indexes, settings of other
/// quantizers, trainers and adapters, the card, the licence, hidden files; and,
/// with a warning, what is no regular file, can't be read or is larger than 1
/// GiB. A .json that Python could not read, a git-LFS pointer and the like are
/// carried as they are, with a warning. io Error for a folder that can't be
/// listed.
SideFiles list_side_files(const std::filesystem::path& folder);

/// Copies them, whole each, and returns the names of those that are there. One
/// that has gone since it was listed is left out. io Error for a full disk and
/// the like.
std::vector<std::string> copy_side_files(
    const SideFiles& files,
    const std::filesystem::path& from,
    const std::filesystem::path& to);

/// Whether a side file's name is a tokenizer's, of whatever kind.
bool is_tokenizer_file(const std::string& name);

}  // namespace pennyweight
