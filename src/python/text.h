#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace pennyweight::python {

namespace nb = nanobind;

/// A str of what may hold bytes that are no UTF-8, as paths do: as os.fsdecode
/// reads them.
inline nb::object to_str(const std::string& text) {
  return nb::steal(PyUnicode_DecodeUTF8(
      text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
}

}  // namespace pennyweight::python
