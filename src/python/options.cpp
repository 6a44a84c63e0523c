#include "python/options.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <set>
#include <type_traits>

#include "core/error.h"
#include "core/text.h"
#include "python/text.h"

namespace pennyweight::python {

namespace {

template <class T>
struct Field {
  using Value = T;
  static constexpr bool optional = false;
};
template <class T>
struct Field<std::optional<T>> {
  using Value = T;
  static constexpr bool optional = true;
};

template <class T>
constexpr const char* type_of() {
  if constexpr (std::is_same_v<T, bool>) {
    return "bool";
  } else if constexpr (std::is_integral_v<T>) {
    return "int";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "float";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "str";
  } else {
    return "list";
  }
}

template <class T>
nb::object value_of(const T& value) {
  return nb::cast(value);
}
template <class T>
nb::object value_of(const std::optional<T>& value) {
  return value ? nb::cast(*value) : nb::none();
}

nb::object strings(const std::vector<std::string>& texts) {
  return nb::cast(texts);
}

template <class T>
nb::dict describe(const OptionInfo& info, const T& field) {
  nb::dict own;
  own["name"] = info.name;
  own["type"] = type_of<typename Field<T>::Value>();
  own["optional"] = Field<T>::optional;
  own["default"] = value_of(field);
  own["help"] = info.help;
  own["short_name"] = info.short_name;
  own["aliases"] = strings(info.aliases);
  own["choices"] = strings(info.choices);
  own["positional"] = info.positional;
  own["required"] = info.required;
  own["affects_result"] = info.affects_result;
  own["advanced"] = info.advanced;
  own["takes"] = info.takes;
  return own;
}

[[noreturn]] void refuse(const std::string& command, const std::string& what) {
  throw argument_error(command, what);
}

/// A visitor that sets options from a dict of values.
class Setter {
 public:
  Setter(const std::string& command, const nb::dict& values)
      : command_(command), values_(values) {}

  void operator()(const OptionInfo& info, OptionRef field) {
    known_.insert(info.name);
    const nb::str key(info.name.c_str());
    if (!values_.contains(key) || values_[key].is_none()) {
      if (info.required) {
        refuse(command_, "\"" + info.name + "\" is required");
      }
      return;
    }
    const nb::object value = values_[key];
    std::visit([&](auto* to) { set(info, value, *to); }, field);
  }

  void check_names() const {
    for (const auto& [key, value] : values_) {
      const auto name = nb::cast<std::string>(nb::str(key));
      if (!known_.contains(name)) {
        refuse(command_, "it has no option \"" + one_line(name, 60) + "\"");
      }
    }
  }

 private:
  template <class T>
  void set(const OptionInfo& info, const nb::object& value, T& field) {
    using Value = typename Field<T>::Value;
    Value read{};
    // A bool is an int to Python; an option for numbers takes none.
    const bool is_bool = PyBool_Check(value.ptr());
    if (is_bool != std::is_same_v<Value, bool> || !convert(value, read)) {
      const auto text = nb::cast<std::string>(nb::repr(value));
      refuse(
          command_,
          info.name + " takes " + article(type_of<Value>()) + ", not " +
              one_line(text, 60));
    }
    if constexpr (std::is_same_v<Value, std::string>) {
      if (!info.choices.empty() &&
          std::ranges::find(info.choices, read) == info.choices.end()) {
        refuse(
            command_,
            info.name + " is one of " + joined(info.choices) + ", not " +
                one_line(read, 60));
      }
    }
    field = std::move(read);
  }

  template <class T>
  static bool convert(const nb::object& value, T& read) {
    return nb::try_cast<T>(value, read);
  }
  // Takes paths that are no UTF-8, too.
  static bool convert(const nb::object& value, std::string& read) {
    const bool is_text = nb::isinstance<nb::str>(value);
    if (is_text) {
      read = from_str(value);
    }
    return is_text;
  }

  static std::string article(const std::string& type) {
    return (type == "int" ? "an " : "a ") + type;
  }

  const std::string& command_;
  const nb::dict& values_;
  std::set<std::string> known_;
};

}  // namespace

nb::list describe_options(const Command& command) {
  nb::list all;
  command.call()->visit([&](const OptionInfo& info, OptionRef field) {
    std::visit([&](auto* own) { all.append(describe(info, *own)); }, field);
  });
  return all;
}

void set_options(Call& call, const std::string& command, nb::dict values) {
  Setter setter(command, values);
  call.visit(std::ref(setter));
  setter.check_names();
}

}  // namespace pennyweight::python
