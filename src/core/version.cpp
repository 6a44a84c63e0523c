#include "core/version.h"

namespace pennyweight {

const char* version() {
  return PENNYWEIGHT_VERSION;
}

}  // namespace pennyweight
