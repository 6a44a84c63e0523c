#pragma once

// Before Highway's own headers. On x86 the kernels are compiled for AVX2 and
// AVX-512 (which Highway calls AVX3); below AVX2 only reference/ runs, see
// simd::available(). On ARM they are compiled for NEON.
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_AVX2
#if defined(__SANITIZE_ADDRESS__)
// The same source: what it reads and writes beside its rows shows in one.
#define HWY_DISABLED_TARGETS (HWY_AVX3 | HWY_AVX3_DL)
#else
#define HWY_DISABLED_TARGETS HWY_AVX3_DL
#endif
#elif defined(__aarch64__)
// Of SVE a vector's size is not known when kernels are compiled, and they hold
// vectors in arrays.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
