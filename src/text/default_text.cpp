#include "text/default_text.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "core/atomic_file.h"
#include "core/error.h"
#include "text/rows.h"
#include "text/rust_text.h"

namespace pennyweight {

namespace {

// As in mlx_lm/quant/utils.py (mlx-lm 0.32.2).
constexpr std::string_view kAddress =
    "https://gist.githubusercontent.com/tristandruyen/"
    "9e207a95c7d75ddf37525d353e00659c/raw/"
    "571fda718462de863e5a0171078c175420c7649a/calibration_data_v5_rc.txt";
constexpr const char* kCached = ".cache/mlx-lm/calibration_v5.txt";
constexpr uint64_t kLimit = uint64_t{64} << 20;
constexpr uint64_t kSeconds = 20;

bool offline() {
  const char* value = std::getenv("HF_HUB_OFFLINE");
  std::string_view text = value ? value : "";
  return !text.empty() && text != "0";
}

}  // namespace

DefaultText read_default_text() {
  const char* home = std::getenv("HOME");
  fs::path cached = home && *home ? fs::path(home) / kCached : fs::path();
  if (!cached.empty() && fs::exists(cached)) {
    return {read_text(cached), ""};
  }
  if (offline()) {
    throw Error(
        ErrorCode::io,
        "data",
        "mlx-lm's calibration text is not in its cache and HF_HUB_OFFLINE is "
        "set");
  }
  RustBytes body;
  RustBytes error;
  int32_t status = pw_http_get(
      rust_data(kAddress),
      kAddress.size(),
      kLimit,
      kSeconds,
      body.out(),
      error.out());
  check_rust(status, error, "data", "can't fetch mlx-lm's calibration text");
  DefaultText result{std::string(body.view()), ""};
  if (find_invalid_utf8(result.text) != std::string::npos ||
      result.text.empty()) {
    throw Error(
        ErrorCode::corrupt, "data", "mlx-lm's calibration text came damaged");
  }
  if (cached.empty()) {
    return result;
  }
  try {
    fs::create_directories(cached.parent_path());
    write_file(cached, result.text);
  } catch (const std::exception& failure) {
    result.warning =
        "the calibration text could not be kept in mlx-lm's "
        "cache: " +
        one_line(failure.what());
  }
  return result;
}

}  // namespace pennyweight
