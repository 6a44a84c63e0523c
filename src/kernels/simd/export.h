#pragma once

/// At the end of a file that is compiled once for each instruction set, within
/// `#if HWY_ONCE` and namespace kernels: defines simd::name, which calls the
/// `name` that was compiled for the best of them.
#define SIMD_EXPORT(name, Args)       \
  HWY_EXPORT(name);                   \
  namespace simd {                    \
  void name(const Args& args) {       \
    HWY_DYNAMIC_DISPATCH(name)(args); \
  }                                   \
  }
