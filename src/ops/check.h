#pragma once

#include <string>

#include "ops/ops.h"

/// Checks of arguments that several ops share. Each throws invalid_argument
/// Errors that name the function `where` and the shape or dtype that does not
/// fit.
namespace pennyweight::ops {

std::string describe(const mx::array& x);

void require(bool holds, const char* where, const std::string& what);
void require_floating(const mx::array& x, const char* where, const char* name);
void require_floating(mx::Dtype dtype, const char* where);

void check_linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias);
void check_quantized(const QuantizedWeight& weight, const char* where);
/// A not_supported Error where scales are not floating and so have no gradient.
void check_affine(const QuantizedWeight& weight);
void check_quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias);
void check_residual(
    const mx::array& residual,
    const mx::array& x,
    int out,
    const char* where);
}  // namespace pennyweight::ops
