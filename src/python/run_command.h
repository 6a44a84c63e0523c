#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace pennyweight::python {

namespace nb = nanobind;

using OptionDict = nb::typed<nb::dict, nb::str, nb::any>;

/// Runs a command with `options` (see set_options) and gives back its report
/// as JSON text. `fetched` is the JSON text of run/fetched.h; `on_event` and
/// `on_warning` are those of a Listener. The GIL is released meanwhile. Errors
/// are raised as classes of pennyweight.errors; NotSupported while another run
/// goes on in this process.
nb::str run_command(
    const std::string& name,
    OptionDict options,
    const std::string& fetched,
    nb::object on_event,
    nb::object on_warning);

/// The hub ids that such a call names, as JSON text (cli/hub_names.h). Options
/// of the wrong type are passed over here: run_command() refuses them.
std::string hub_names_of(const std::string& name, OptionDict options);

}  // namespace pennyweight::python
