#pragma once

#include <cstdint>
#include <string>

namespace pennyweight {

/// "4GB", "1.5GiB", "800M", "500000000" to bytes: kB, MB, GB, TB (and K, M, G,
/// T) count by 1000, KiB, MiB, GiB, TiB by 1024. invalid_argument, naming
/// `option`, for anything else and for what is not above zero.
int64_t parse_bytes(const std::string& text, const std::string& option);

}  // namespace pennyweight
