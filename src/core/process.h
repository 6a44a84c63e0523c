#pragma once

#include <cstdint>

namespace pennyweight {

/// Bytes of memory that this process held at most, so far.
int64_t peak_rss();

}  // namespace pennyweight
