#pragma once

#include <string>

#include "ops/ops.h"

/// Argument checks of ops.h; each throws invalid_argument Errors that name
/// the function `where` and the shape or dtype that does not fit.
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
/// not_supported Error for scales that are no floats, which have no gradient.
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
void check_gram(
    const mx::array& sum,
    const std::vector<mx::array>& parts,
    const mx::array& b);
void check_rms_norm(const mx::array& x, const mx::array& weight);
void check_rope(const mx::array& x, const RopeTable& table, int offset);
void check_attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options);
void check_swiglu(const mx::array& gate, const mx::array& up);
void check_rows(const mx::array& x, const char* where);
void check_score(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first);
void check_score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first);
void check_score_state(const mx::array& state);

}  // namespace pennyweight::ops
