#pragma once

#include <filesystem>
#include <optional>
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
/// carried as they are, with a warning. A link that leads out of the folder is
/// not followed, lest a model bring a user's own file into an output that gets
/// published: left out with a warning that names where it leads, and of the
/// tokenizer and the chat templates, which an output needs, an invalid_argument
/// Error. A snapshot in the hub's cache has its files in the cache's folder of
/// the same repository or in the store that repositories share, which count as
/// its own. io Error for a folder that
/// can't be listed.
SideFiles list_side_files(const std::filesystem::path& folder);

/// Copies them, whole each, and returns the names of those that are there. One
/// that has gone since it was listed is left out, and so is one that has come
/// to lead out of the folder. io Error for a full disk and the like.
std::vector<std::string> copy_side_files(
    const SideFiles& files,
    const std::filesystem::path& from,
    const std::filesystem::path& to);

/// Whether a side file's name is a tokenizer's, of whatever kind.
bool is_tokenizer_file(const std::string& name);

/// Where the entry `name` of a model's folder leads by way of links, if that is
/// nowhere that the folder owns.
std::optional<std::filesystem::path> leads_out(
    const std::filesystem::path& folder,
    const std::string& name);

}  // namespace pennyweight
