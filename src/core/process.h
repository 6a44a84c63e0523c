#pragma once

#include <cstddef>
#include <cstdint>

namespace pennyweight {

/// Bytes of memory that this process held at most, so far.
int64_t peak_rss();

/// Whether the system would give this process `bytes` of address space more. A
/// signal handler may ask.
bool has_address_space(size_t bytes);

}  // namespace pennyweight
