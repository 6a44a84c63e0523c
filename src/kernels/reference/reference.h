#pragma once

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"

/// Naive kernels, which sum in float64: the oracle of the tests.
namespace pennyweight::kernels::reference {

#define KERNEL(name, Args) void name(const Args& args);
#include "kernels/kernel_list.def"

}  // namespace pennyweight::kernels::reference
