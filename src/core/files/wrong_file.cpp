#include "core/files/wrong_file.h"

#include <algorithm>
#include <fstream>

namespace pennyweight {

namespace {

bool begins_with_word(std::string_view text, std::string_view word) {
  return text.size() >= word.size() &&
      std::equal(word.begin(), word.end(), text.begin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b);
         });
}

}  // namespace

std::optional<std::string> wrong_file(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) {
    text.remove_prefix(3);
  }
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (text.empty()) {
    return "is empty; fetch it again";
  }
  // https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
  if (text.starts_with("version https://git-lfs.github.com/spec/")) {
    return "is a git-LFS pointer and not the file itself; run `git lfs pull` "
           "in its folder";
  }
  for (const char* page : {"<!doctype html", "<html", "<?xml"}) {
    if (begins_with_word(text, page)) {
      return "is an HTML or XML page, which a download got in its place; fetch "
             "it again";
    }
  }
  for (const char* answer : {"404: not found", "entry not found"}) {
    if (begins_with_word(text, answer)) {
      return "is a server's answer that it has no such file; fetch it again";
    }
  }
  return std::nullopt;
}

std::string beginning_of(const std::filesystem::path& path, size_t most) {
  std::ifstream file(path, std::ios::binary);
  std::string text(most, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

}  // namespace pennyweight
