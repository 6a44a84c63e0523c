#include "kernels/blas/cblas.h"

#include <dlfcn.h>

#ifdef __APPLE__
// Declared here, since Apple's header has another interface for each setting
// of ACCELERATE_NEW_LAPACK, and is not at hand where sources are compiled for
// macOS on another system. This symbol is the one of 32-bit sizes.
extern "C" pennyweight::kernels::blas::Sgemm cblas_sgemm;
#endif

namespace pennyweight::kernels::blas {

namespace {

#ifdef __APPLE__

Library find_library() {
  // From macOS 15 on threads can be left to who calls; before, small products
  // like ours run on their caller's thread by themselves.
  constexpr int kSingleThreaded = 1;
  using SetThreading = int (*)(int);
  if (void* set = ::dlsym(RTLD_DEFAULT, "BLASSetThreading")) {
    reinterpret_cast<SetThreading>(set)(kSingleThreaded);
  }
  return {cblas_sgemm, "Accelerate", "Accelerate"};
}

#else

template <class Function>
Function symbol(void* from, const char* name) {
  return reinterpret_cast<Function>(::dlsym(from, name));
}

Library find_library() {
  // Never closed: it may have threads of its own.
  void* openblas = ::dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (openblas == nullptr) {
    return {};
  }
  Library found;
  found.sgemm = symbol<Sgemm*>(openblas, "cblas_sgemm");
  const auto set_threads =
      symbol<void (*)(int)>(openblas, "openblas_set_num_threads");
  if (found.sgemm == nullptr || set_threads == nullptr) {
    return {};
  }
  set_threads(1);
  found.name = "OpenBLAS";
  found.target = "an unknown core";
  if (const auto core =
          symbol<const char* (*)()>(openblas, "openblas_get_corename")) {
    found.target = core();
  }
  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
  if (const auto config =
          symbol<const char* (*)()>(openblas, "openblas_get_config")) {
    const std::string text = config();
    found.name = text.substr(0, text.find(' ', text.find(' ') + 1));
  }
  return found;
}

#endif

}  // namespace

const Library& library() {
  static const Library found = find_library();
  return found;
}

}  // namespace pennyweight::kernels::blas
