#include <memory>

#include "commands/quantize/quantize.h"

namespace pennyweight {

void refuse_beside_recipe(
    const Session& session,
    const QuantizeOptions& options) {
  const auto given = options_to_json(options, true);
  // Not on the stack, where g++ 12 takes its strings for uninitialized.
  const auto defaults = std::make_unique<QuantizeOptions>();
  const auto absent = options_to_json(*defaults, true);
  for (const auto& [name, value] : given.items()) {
    if (value != absent.at(name) && name != "recipe" && name != "data-path" &&
        name != "assume-family") {
      session.refuse("--recipe says what --" + name + " sets; leave that out");
    }
  }
}

}  // namespace pennyweight
