#pragma once

#include <string>
#include <string_view>

#include "kernels/backward.h"
#include "kernels/kernels.h"

/// Matrix products by oneDNN, which picks AMX, AVX-512 or AVX2 at run time.
/// Only where PENNYWEIGHT_HAVE_ONEDNN is defined.
namespace pennyweight::kernels::onednn {

/// `name_f32` runs every product in float32, into which bfloat16 goes exactly.
#define KERNEL_OF_PRODUCTS(name, Args) \
  void name(const Args& args);         \
  void name##_f32(const Args& args);
#include "kernels/kernel_list.def"

/// Whether bfloat16 products run on bfloat16 instructions here, and whether
/// these are faster than float32's.
bool has_bfloat16();
bool bfloat16_pays();

/// The instruction set in use; with `narrow` that of bfloat16 products.
std::string_view target_name(bool narrow);

/// The library's, such as "2.6.0".
std::string version();

}  // namespace pennyweight::kernels::onednn
