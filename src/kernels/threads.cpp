#include "kernels/threads.h"

#include <omp.h>

namespace pennyweight::kernels {

int thread_count() {
  return omp_get_max_threads();
}

}  // namespace pennyweight::kernels
