#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"

namespace pennyweight::kernels {

/// The implementations of kernels.h. reference is naive and is what the
/// others are tested against; simd is Highway's, for the best target that the
/// machine has; onednn is simd with oneDNN's matrix products, of bfloat16 on
/// bfloat16 instructions where the machine has them, and onednn_f32 the same
/// with all of them in float32, which is faster where those are slow.
enum class Choice { reference, simd, onednn, onednn_f32 };

std::string_view choice_name(Choice choice);

/// What this build and machine can run, the best last.
std::vector<Choice> available_choices();

/// PENNYWEIGHT_KERNEL=reference|simd|onednn|onednn_f32, else the best. Another
/// value is an invalid_argument Error, onednn where it is not built in
/// not_supported.
Choice active_choice();

/// Replaces what PENNYWEIGHT_KERNEL says, for tests and benchmarks; none
/// gives way to it again.
void override_choice(std::optional<Choice> choice);

/// A choice's kernels, by the names of kernel_list.def.
struct Implementation {
#define KERNEL(name, Args) void (*name)(const Args&);
#include "kernels/kernel_list.def"
};

const Implementation& implementation(Choice choice);

/// The name of the instruction set that `choice` runs on, such as "AVX3".
std::string_view target_name(Choice choice);

/// The kind of kernels in use, such as "onednn 2.6.0 on avx512_core_bf16". Of
/// one kind the same numbers come out for any number of threads and on any
/// machine; another sums in another order, and rounds otherwise.
std::string kernel_kind();

}  // namespace pennyweight::kernels
