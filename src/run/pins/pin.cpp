#include "run/pins/pin.h"

#include <algorithm>

#include "core/error.h"
#include "core/text.h"
#include "run/pins/pattern.h"

namespace pennyweight {

namespace {

using Role = ModuleSpec::Role;

constexpr size_t kLongestPattern = 1000;

struct NamedRole {
  Role role;
  const char* name;
};
constexpr NamedRole kRoles[] = {
    {Role::attention, "attention"},
    {Role::experts, "experts"},
    {Role::shared_expert, "shared_expert"},
    {Role::mlp, "mlp"},
    {Role::router, "router"},
    {Role::embedding, "embedding"},
    {Role::head, "head"},
};

class Parser {
 public:
  Parser(
      WidthPin::Kind kind,
      std::string flag,
      std::string text,
      std::string where)
      : text_(std::move(text)), where_(std::move(where)) {
    pin_.kind = kind;
    pin_.said = std::move(flag) + " " + one_line(text_, 120);
  }

  WidthPin parse() {
    const size_t equals = text_.rfind('=');
    const bool has_width = equals != std::string::npos;
    pin_.pattern = text_.substr(0, equals);
    check_pattern();
    if (pin_.kind == WidthPin::Kind::keep) {
      if (has_width) {
        refuse("it takes a pattern alone; --pin gives a width");
      }
      return pin_;
    }
    if (!has_width) {
      refuse(
          pin_.kind == WidthPin::Kind::pin
              ? "it says no width, such as " + pin_.pattern + "=6 or " +
                  pin_.pattern + "=6:64"
              : "it says no number of bits, such as " + pin_.pattern + "=5");
    }
    read_width(text_.substr(equals + 1));
    return pin_;
  }

 private:
  void check_pattern() {
    const auto& pattern = pin_.pattern;
    if (pattern.empty()) {
      refuse("the pattern is empty; '*' matches every module");
    }
    if (pattern.size() > kLongestPattern) {
      refuse("the pattern is longer than any module's path");
    }
    if (!is_glob(pattern)) {
      refuse("a [ has no ] in the pattern");
    }
    for (const auto& known : kRoles) {
      if (pattern == known.name) {
        pin_.role = known.role;
      }
    }
  }

  void read_width(const std::string& width) {
    const auto parts = cut(width, ':');
    for (const char* floats : {"bf16", "fp16", "fp32", "floats"}) {
      if (parts.front() == floats) {
        refuse("floats are no width; --keep leaves modules unquantized");
      }
    }
    pin_.bits = number(parts[0], "bits");
    if (pin_.kind == WidthPin::Kind::at_least) {
      if (parts.size() > 1) {
        refuse("it takes bits alone; --pin gives groups and mode, too");
      }
      if (pin_.bits > 8) {
        refuse(
            "no width has so many bits; 8 are the most, and --keep leaves "
            "modules unquantized");
      }
      return;
    }
    if (parts.size() > 3) {
      refuse("a width is BITS[:GROUP[:MODE]], such as 6:64 or 4:32:mxfp4");
    }
    if (parts.size() > 1) {
      pin_.group_size = number(parts[1], "group size");
    }
    if (parts.size() > 2) {
      pin_.mode = parts[2];
    }
  }

  int number(const std::string& text, const std::string& what) {
    const auto value = number_in<int>(text);
    if (value.value_or(0) < 1) {
      refuse(
          "its " + what + " '" + one_line(text, 40) + "' is no number above 0");
    }
    return *value;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw argument_error(where_, pin_.said + ": " + what);
  }

  std::string text_;
  std::string where_;
  WidthPin pin_;
};

}  // namespace

std::string role_name(ModuleSpec::Role role) {
  const auto* named = std::ranges::find(kRoles, role, &NamedRole::role);
  return named == std::end(kRoles) ? "unknown" : named->name;
}

std::vector<WidthPin> parse_pins(
    const PinOptions& options,
    const std::string& where) {
  using Kind = WidthPin::Kind;
  std::vector<WidthPin> pins;
  const auto add = [&](Kind kind, const char* flag, const auto& texts) {
    for (const auto& text : texts) {
      pins.push_back(Parser(kind, flag, text, where).parse());
    }
  };
  add(Kind::pin, "--pin", options.pin);
  add(Kind::at_least, "--at-least", options.at_least);
  add(Kind::keep, "--keep", options.keep);
  return pins;
}

}  // namespace pennyweight
