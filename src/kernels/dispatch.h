#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"

namespace pennyweight::kernels {

/// The implementations of the kernels. reference is naive: the others are
/// tested against it. simd is written in Highway and runs on the best
/// instruction set that the machine has. blas is simd with a BLAS's matrix
/// products, which are float32's. onednn is simd with oneDNN's matrix
/// products, which run bfloat16 on bfloat16 instructions where there are any;
/// onednn_f32 runs them all in float32, which is faster where those
/// instructions are slow. mlx is none: ops are made of MLX's own, as on a GPU,
/// which tests run; what calls kernels itself gets the best of the others.
enum class Choice { reference, simd, blas, onednn, onednn_f32, mlx };

std::string_view choice_name(Choice choice);

/// What this build and machine have kernels for, the best last.
std::vector<Choice> available_choices();

/// What PENNYWEIGHT_KERNEL says, the name of a choice; the best where it is not
/// set. Any other value is an invalid_argument Error, one that this build or
/// machine lacks a not_supported Error.
Choice active_choice();

/// For tests and benchmarks: takes `choice` instead of what PENNYWEIGHT_KERNEL
/// says; without one, PENNYWEIGHT_KERNEL counts again.
void override_choice(std::optional<Choice> choice);

/// A choice's kernels, by the names of kernel_list.def.
struct Implementation {
#define KERNEL(name, Args) void (*name)(const Args&);
#include "kernels/kernel_list.def"
};

const Implementation& implementation(Choice choice);

/// The name of the instruction set that `choice` runs on, such as "AVX3".
std::string_view target_name(Choice choice);

/// The kind of kernels in use, such as "onednn 2.6.0 on avx512_core_bf16".
/// Kernels of one kind give the same numbers on any machine and with any number
/// of threads. Another kind adds up in another order and so rounds differently.
std::string kernel_kind();

}  // namespace pennyweight::kernels
