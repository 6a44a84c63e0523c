#pragma once

#include <string>
#include <string_view>

#include "kernels/backward.h"
#include "kernels/kernels.h"

/// Matrix products by a BLAS's float32 product: Accelerate on macOS, where it
/// reaches matrix units that no instruction set documents, OpenBLAS elsewhere.
/// Operands of other types are converted a tile at a time.
namespace pennyweight::kernels::blas {

#define KERNEL_OF_PRODUCTS(name, Args) void name(const Args& args);
#include "kernels/kernel_list.def"

/// Whether this machine has a BLAS that these can call.
bool available();

/// What it runs on, and what it is, such as "Zen" and "OpenBLAS 0.3.21".
std::string_view target_name();
std::string version();

}  // namespace pennyweight::kernels::blas
