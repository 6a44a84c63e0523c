#pragma once

#include <nanobind/nanobind.h>

#include "commands/command.h"

namespace pennyweight::python {

namespace nb = nanobind;

/// What the option visitor tells of `command`, in the order of its visit: a
/// list of dicts with "name", "type" ("bool", "int", "float", "str" or
/// "list"), "optional" (whether None stands for unset), "default", "help",
/// "short_name", "aliases", "choices", "positional", "required",
/// "affects_result", "advanced" and "takes", as in core/options.h.
nb::list describe_options(const Command& command);

/// Sets the options of `call` that `values` names as the visitor does; None
/// leaves one as it is. invalid_argument Error for an unknown name, a value of
/// another type or not among the choices, and a required option that is
/// missing.
void set_options(Call& call, const std::string& command, nb::dict values);

}  // namespace pennyweight::python
