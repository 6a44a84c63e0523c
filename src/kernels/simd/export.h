#pragma once

/// At the end of a file that is compiled once for each instruction set, within
/// `#if HWY_ONCE`: defines the function `name`, which calls the `name` that was
/// compiled for the best of them. In namespace kernels SIMD_EXPORT does so for
/// a kernel, in simd.
#define SIMD_FORWARD(Result, name, parameters, arguments) \
  HWY_EXPORT(name);                                       \
  Result name parameters {                                \
    return HWY_DYNAMIC_DISPATCH(name) arguments;          \
  }
#define SIMD_EXPORT(name, Args)       \
  HWY_EXPORT(name);                   \
  namespace simd {                    \
  void name(const Args& args) {       \
    HWY_DYNAMIC_DISPATCH(name)(args); \
  }                                   \
  }
