#include "run/pins/pattern.h"

#include <string_view>

namespace pennyweight {

namespace {

constexpr std::string_view kWrapper = "language_model.";

// Behind the set's closing bracket; npos: it has none.
size_t end_of_set(std::string_view pattern, size_t at) {
  size_t first = at + 1;
  first += first < pattern.size() && pattern[first] == '!' ? 1 : 0;
  // A bracket that comes first is one of the set.
  const size_t close = pattern.find(']', first + 1);
  return close == std::string_view::npos ? close : close + 1;
}

bool is_in_set(std::string_view set, char c) {
  const bool without = set.front() == '!';
  set.remove_prefix(without ? 1 : 0);
  bool found = false;
  for (size_t i = 0; i < set.size(); ++i) {
    const bool range = i + 2 < set.size() && set[i + 1] == '-';
    found = found || (range ? set[i] <= c && c <= set[i + 2] : set[i] == c);
    i += range ? 2 : 0;
  }
  return found != without;
}

// What stands at `at` of the pattern, but for a star, and where the next does.
bool takes(std::string_view pattern, size_t at, char c, size_t& next) {
  next = at + 1;
  if (pattern[at] == '?') {
    return true;
  }
  if (pattern[at] != '[') {
    return pattern[at] == c;
  }
  next = end_of_set(pattern, at);
  return is_in_set(pattern.substr(at + 1, next - at - 2), c);
}

// Only the last star is ever tried again, so that the time is that of a
// product of lengths, whatever the pattern.
bool matches_all(std::string_view pattern, std::string_view text) {
  size_t at = 0;
  size_t star = std::string_view::npos;
  size_t from = 0;  // of the text, what the star does not take
  for (size_t i = 0; i < text.size();) {
    size_t next = 0;
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      from = i;
    } else if (at < pattern.size() && takes(pattern, at, text[i], next)) {
      at = next;
      ++i;
    } else if (star != std::string_view::npos) {
      at = star + 1;
      i = ++from;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', at) == std::string_view::npos;
}

bool matches_end(std::string_view pattern, std::string_view path) {
  for (size_t from = 0;;) {
    if (matches_all(pattern, path.substr(from))) {
      return true;
    }
    const size_t dot = path.find('.', from);
    if (dot == std::string_view::npos) {
      return false;
    }
    from = dot + 1;
  }
}

std::string unwrapped(std::string path) {
  for (size_t at = 0; (at = path.find(kWrapper, at)) != std::string::npos;) {
    if (at == 0 || path[at - 1] == '.') {
      path.erase(at, kWrapper.size());
    } else {
      ++at;
    }
  }
  return path;
}

}  // namespace

bool is_glob(const std::string& pattern) {
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '[') {
      i = end_of_set(pattern, i);
      if (i == std::string::npos) {
        return false;
      }
      --i;
    }
  }
  return true;
}

bool matches_path(const std::string& pattern, const std::string& path) {
  return matches_end(pattern, path) ||
      matches_end(unwrapped(pattern), unwrapped(path));
}

}  // namespace pennyweight
