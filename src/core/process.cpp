#include "core/process.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <fstream>
#include <string>

namespace pennyweight {

int64_t peak_rss() {
  // Linux's getrusage counts what the process was before it became this
  // program, the copy of a large parent for instance; /proc does not.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) {
      return std::stoll(line.substr(6)) * 1024;
    }
  }
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
}

bool has_address_space(size_t bytes) {
  void* held =
      ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return held != MAP_FAILED && ::munmap(held, bytes) == 0;
}

}  // namespace pennyweight
