#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace pennyweight {

/// What a file's first bytes show it to be where another file should stand: a
/// git-LFS pointer, a page or a refusal that a download got for an answer, or
/// nothing at all. The words follow the file's name ("is a git-LFS pointer,
/// ...") and say what to do. `text` is the file, or its beginning.
std::optional<std::string> wrong_file(std::string_view text);

/// The first `most` bytes of a file, or all; none where it can't be read.
std::string beginning_of(const std::filesystem::path& path, size_t most);

}  // namespace pennyweight
