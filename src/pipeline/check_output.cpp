#include "pipeline/check_output.h"

#include <algorithm>
#include <system_error>

#include "core/error.h"

namespace pennyweight {

void check_output(
    const std::string& where,
    const std::filesystem::path& model,
    const std::filesystem::path& output) {
  std::error_code ignored;
  auto from = std::filesystem::weakly_canonical(model, ignored);
  auto to = std::filesystem::weakly_canonical(output, ignored);
  auto [end, unused] =
      std::mismatch(to.begin(), to.end(), from.begin(), from.end());
  if (end == to.end()) {
    throw Error(
        ErrorCode::invalid_argument,
        where,
        "the output " + output.string() +
            " is the model itself or holds it; choose another --mlx-path");
  }
}

}  // namespace pennyweight
