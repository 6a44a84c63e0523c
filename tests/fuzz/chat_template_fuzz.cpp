// libFuzzer target of chat templates: what a template may do to the process
// that renders it, within the crate's own limits. An input is a template. See
// tools/fuzz.sh.

#include <cstdint>
#include <string_view>

#include "core/rust_abi.h"
#include "fuzz_require.h"

extern "C" {
struct PwTemplate;
int32_t pw_template_load(
    const uint8_t* source,
    size_t size,
    PwTemplate** out,
    PwBytes* error);
void pw_template_free(PwTemplate* chat_template);
int32_t pw_template_render(
    PwTemplate* chat_template,
    const uint8_t* variables,
    size_t size,
    PwBytes* out,
    PwBytes* error);
}

namespace {

using namespace pennyweight;

constexpr std::string_view kVariables =
    R"({"messages": [{"role": "system", "content": "a"},
        {"role": "user", "content": "b < c\n"},
        {"role": "assistant", "content": "d", "tool_calls": [{"x": [1.5]}]}],
        "add_generation_prompt": true, "bos_token": "<s>", "tools": null})";

// What C++ makes of a failure is an Error of one line.
bool succeeded(int32_t status, const RustBytes& error) {
  try {
    check_rust(status, error, "chat template");
    return true;
  } catch (const Error& failure) {
    require_one_line(failure);
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  RustBytes error;
  PwTemplate* made = nullptr;
  if (!succeeded(pw_template_load(data, size, &made, error.out()), error)) {
    return 0;
  }
  RustBytes first;
  RustBytes second;
  for (RustBytes* text : {&first, &second}) {
    const auto status = pw_template_render(
        made,
        rust_data(kVariables),
        kVariables.size(),
        text->out(),
        error.out());
    if (!succeeded(status, error)) {
      break;
    }
  }
  // A template has no state: the same messages give the same text.
  const bool timed = std::string_view(reinterpret_cast<const char*>(data), size)
                         .find("strftime") != std::string_view::npos;
  require(timed || second.size() == 0 || first.view() == second.view());
  pw_template_free(made);
  return 0;
}
