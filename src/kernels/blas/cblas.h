#pragma once

#include <string>

/// The one function of a BLAS that is called, by C's name for it (BLAS
/// Technical Forum standard, annex B.2.12). On macOS it is Accelerate's.
/// Elsewhere OpenBLAS's, which is looked for when it is first asked for: so
/// neither program nor library needs one.
namespace pennyweight::kernels::blas {

enum Order : int { kRowMajor = 101 };
enum Transposed : int { kAsStored = 111, kTransposed = 112 };

/// c [m, n] = alpha a [m, k] b [k, n] + beta c, where a transposed operand is
/// stored as [k, m] or [n, k]; lda, ldb and ldc are elements from row to row.
using Sgemm = void(
    Order order,
    Transposed trans_a,
    Transposed trans_b,
    int m,
    int n,
    int k,
    float alpha,
    const float* a,
    int lda,
    const float* b,
    int ldb,
    float beta,
    float* c,
    int ldc);

struct Library {
  Sgemm* sgemm = nullptr;  // null where there is none
  std::string name;        // with version and core, such as "OpenBLAS 0.3.21"
  std::string target;      // what it runs on, such as "Zen"
};

/// The machine's, which runs on its caller's thread alone. Several threads may
/// call it at once.
const Library& library();

}  // namespace pennyweight::kernels::blas
