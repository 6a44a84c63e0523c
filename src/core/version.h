#pragma once

namespace pennyweight {

/// Of the program, such as "0.1.0".
const char* version();

}  // namespace pennyweight
