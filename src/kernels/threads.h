#pragma once

namespace pennyweight::kernels {

/// Threads that a kernel uses: PENNYWEIGHT_THREADS, else OMP_NUM_THREADS,
/// else the cores this process may run on.
int thread_count();

}  // namespace pennyweight::kernels
