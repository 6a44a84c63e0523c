#include "cli/console.h"
#include "core/json.h"
#include "core/json_text.h"

namespace pennyweight::cli {

std::string json_text(const Json& json) {
  return to_text(json, 2) + "\n";
}

}  // namespace pennyweight::cli
