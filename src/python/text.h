#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace pennyweight::python {

namespace nb = nanobind;

/// A str for text that may hold bytes which are no UTF-8, as paths do; they are
/// decoded as os.fsdecode does.
inline nb::object to_str(const std::string& text) {
  return nb::steal(PyUnicode_DecodeUTF8(
      text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
}

/// The bytes of a str, encoded as os.fsencode does. Throws Python's error for
/// characters that it can't encode.
inline std::string from_str(nb::handle text) {
  const auto bytes =
      nb::steal<nb::bytes>(PyUnicode_EncodeFSDefault(text.ptr()));
  if (!bytes.is_valid()) {
    throw nb::python_error();
  }
  return {bytes.c_str(), bytes.size()};
}

}  // namespace pennyweight::python
