#include "text/default_text.h"

#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "text/byte_file.h"

namespace pennyweight {

namespace fs = std::filesystem;

namespace {

// As in mlx_lm/quant/utils.py (mlx-lm 0.32.2).
constexpr const char* kCached = ".cache/mlx-lm/calibration_v5.txt";

}  // namespace

std::string read_default_text() {
  const char* home = std::getenv("HOME");
  const auto cached = fs::path(home ? home : "") / kCached;
  if (fs::exists(cached)) {
    return read_text(cached);
  }
  const char* why = std::getenv("PENNYWEIGHT_NO_TEXT");
  throw not_found_error(
      "data",
      "it is not in " + cached.string() +
          (why ? ", and fetching it failed: " + one_line(why)
               : ", where mlx-lm and the pennyweight that `pip install` gives "
                 "put it"));
}

}  // namespace pennyweight
