#include "python/run_command.h"

#include <mlx/memory.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <vector>

#include "cli/hub_names.h"
#include "cli/last_words.h"
#include "commands/command.h"
#include "core/error.h"
#include "core/files/output_file.h"
#include "core/json.h"
#include "core/json_text.h"
#include "core/signal_stack.h"
#include "kernels/product_log.h"
#include "ops/ops.h"
#include "pass/process_group.h"
#include "python/listener.h"
#include "python/options.h"
#include "python/text.h"
#include "run/kernel_report.h"
#include "run/session.h"

namespace pennyweight::python {

namespace mx = mlx::core;

namespace {

/// Holds what only one run of a process can have at a time: MLX's cache, whose
/// limit it puts back at the end, and the log of products. Throws a
/// not_supported Error while another run goes on.
class OneRun {
 public:
  explicit OneRun(const std::string& name) {
    if (running_.exchange(true)) {
      throw not_supported_error(
          name,
          "another command is running in this process; wait for it, or start "
          "another process");
    }
    cache_ = mx::set_cache_limit(0);
    mx::set_cache_limit(cache_);
    ops::keep_freed_memory();
  }
  ~OneRun() {
    mx::set_cache_limit(cache_);
    mx::clear_cache();
    running_ = false;
  }
  OneRun(const OneRun&) = delete;
  OneRun& operator=(const OneRun&) = delete;

 private:
  static std::atomic<bool> running_;
  size_t cache_ = 0;
};

std::atomic<bool> OneRun::running_{false};

std::unique_ptr<Call> find_call(const std::string& name) {
  for (const Command& command : commands()) {
    if (command.name == name) {
      return command.call();
    }
  }
  throw argument_error(
      "pennyweight", "there is no command " + one_line(name, 60));
}

// The report as the command line writes it.
std::string run_call(
    Call& call,
    const std::string& name,
    const std::string& fetched,
    Listener& listener) {
  const OneRun one(name);
  const auto before = kernels::products_served();
  std::vector<std::string> warned;
  const ProgressFn progress = [&](const ProgressEvent& event) {
    if (event.warning && std::ranges::count(warned, event.message) == 0) {
      warned.push_back(event.message);
    }
    return listener.hear(event);
  };
  Session session(name, progress);
  session.fetched = parse_json(fetched, "fetched");
  session.reserve_file =
      [](const std::string& path, bool replaces, const char* option) {
        if (!path.empty()) {
          OutputFile file(path, replaces, option);
        }
      };
  auto json = to_json(call.run(session));
  if (const auto slow = slow_products(before); !slow.empty()) {
    warn(progress, "kernels", slow);
  }
  json["kernels"] = kernels_json(before);
  json["warnings"] = warned;
  return to_text(json);
}

// Raises an error of the program as the class of pennyweight.errors that its
// code has.
[[noreturn]] void raise(std::exception_ptr thrown) {
  const auto words = cli::last_words(thrown);
  const nb::object error = nb::module_::import_("pennyweight.errors")
                               .attr("of")(words.name, to_str(words.line));
  PyErr_SetObject(
      reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw nb::python_error();
}

}  // namespace

nb::str run_command(
    const std::string& name,
    OptionDict options,
    const std::string& fetched,
    nb::object on_event,
    nb::object on_warning) {
  Listener listener(std::move(on_event), std::move(on_warning));
  std::string report;
  std::exception_ptr failure;
  try {
    const auto call = find_call(name);
    set_options(*call, name, std::move(options));
    if (!ProcessGroup::world().first()) {
      listener.keep_silent();  // the first process speaks for all
    }
    const SignalStack stack;
    nb::gil_scoped_release released;
    report = run_call(*call, name, fetched, listener);
  } catch (const nb::python_error&) {
    throw;
  } catch (...) {
    failure = std::current_exception();
  }
  listener.rethrow();
  if (failure) {
    raise(failure);
  }
  return nb::str(to_str(report));
}

std::string hub_names_of(const std::string& name, OptionDict options) {
  std::vector<cli::NamedValue> values;
  const auto call = find_call(name);
  call->visit([&](const OptionInfo& info, OptionRef) {
    const nb::str key(info.name.c_str());
    std::string text;
    if (options.contains(key) && nb::isinstance<nb::str>(options[key])) {
      text = from_str(options[key]);
    }
    values.emplace_back(info.takes, text);
  });
  auto names = cli::hub_names(name, values);
  const nb::str stream("stream");
  if (options.contains(stream) && nb::isinstance<nb::bool_>(options[stream]) &&
      nb::cast<bool>(options[stream])) {
    names["stream"] = true;
  }
  return to_text(names);
}

}  // namespace pennyweight::python
