#include "core/json_literals.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

namespace pennyweight {

namespace {

// Non-finite numbers, which the parser has not, go through it as strings that
// no file holds: a control character and the literal.
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr JsonLiteral kLiterals[] = {
    {"NaN",
     R"("\u0001NaN")",
     "\x01NaN",
     std::numeric_limits<double>::quiet_NaN()},
    {"Infinity", R"("\u0001Infinity")", "\x01Infinity", kInfinity},
    {"-Infinity", R"("\u0001-Infinity")", "\x01-Infinity", -kInfinity},
};

size_t count_digits(std::string_view text, size_t from) {
  return std::min(text.find_first_not_of("0123456789", from), text.size()) -
      from;
}

// Whether `token` is one of JSON's numbers and too large for a double.
bool is_too_large(std::string_view token) {
  size_t at = token.starts_with('-') ? 1 : 0;
  const size_t whole = count_digits(token, at);
  if (whole == 0 || (whole > 1 && token[at] == '0')) {
    return false;
  }
  at += whole;
  if (at < token.size() && token[at] == '.') {
    const size_t digits = count_digits(token, at + 1);
    at += digits == 0 ? 0 : digits + 1;
  }
  if (at < token.size() && (token[at] == 'e' || token[at] == 'E')) {
    const bool has_sign =
        at + 1 < token.size() && (token[at + 1] == '+' || token[at + 1] == '-');
    const size_t digits = count_digits(token, at + 1 + has_sign);
    at += digits == 0 ? 0 : digits + 1 + has_sign;
  }
  return at == token.size() &&
      std::isinf(std::strtod(std::string(token).c_str(), nullptr));
}

// The literal that stands at the beginning of `rest`, and its length.
std::pair<const JsonLiteral*, size_t> literal_at(std::string_view rest) {
  for (const JsonLiteral& literal : kLiterals) {
    if (rest.starts_with(literal.text)) {
      return {&literal, literal.text.size()};
    }
  }
  const size_t length =
      std::min(rest.find_first_not_of("+-.0123456789eE"), rest.size());
  const auto token = rest.substr(0, length);
  const bool large = length > 300 || token.find('e') != token.npos ||
      token.find('E') != token.npos;
  if (large && is_too_large(token)) {
    return {&kLiterals[token[0] == '-' ? 2 : 1], length};
  }
  return {nullptr, std::max<size_t>(length, 1)};
}

}  // namespace

std::optional<std::string> with_stand_ins(std::string_view text) {
  std::string result;
  size_t copied = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) {
        at += text[at] == '\\';
      }
      ++at;
      continue;
    }
    const bool may_begin =
        c == 'N' || c == 'I' || c == '-' || (c >= '0' && c <= '9');
    if (!may_begin) {
      ++at;
      continue;
    }
    const auto [literal, length] = literal_at(text.substr(at));
    if (literal) {
      result += text.substr(copied, at - copied);
      result += literal->stand_in;
      copied = at + length;
    }
    at += length;
  }
  if (copied == 0) {
    return std::nullopt;
  }
  return result + std::string(text.substr(copied));
}

const JsonLiteral* literal_in(std::string_view value) {
  const auto* it = std::ranges::find(kLiterals, value, &JsonLiteral::value);
  return it == std::end(kLiterals) ? nullptr : it;
}

const JsonLiteral* literal_named(std::string_view text) {
  const auto* it = std::ranges::find(kLiterals, text, &JsonLiteral::text);
  return it == std::end(kLiterals) ? nullptr : it;
}

const JsonLiteral& literal_of(double number) {
  return kLiterals[std::isnan(number) ? 0 : number > 0 ? 1 : 2];
}

}  // namespace pennyweight
