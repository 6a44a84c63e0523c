#pragma once

#include "ops/ops.h"

/// The linear attention of qwen3_next and qwen3_5: a short convolution, then
/// the gated delta rule (arXiv 2412.06464). And Mamba-2's, which has a scan
/// (arXiv 2405.21060) in place of the rule.
namespace pennyweight::ops {

/// The gated delta rule. For each batch and value head a state S [value_dim,
/// key_dim] begins at 0 and takes one step a token, in float32:
///   S = g S;  S += beta (v - S k) k^T;  y = S q
/// q and k [batch, length, key_heads, key_dim] of one type, as normalize_keys
/// gives them; v [batch, length, heads, value_dim], heads a multiple of
/// key_heads: key head i serves value heads i * n .. i * n + n - 1; g and
/// beta float32 [batch, length, heads]. The result is y [batch, length,
/// heads, value_dim] in v's type.
mx::array gated_delta(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& g,
    const mx::array& beta);

/// The scan of Mamba-2. For each batch and head a state S [head_dim, state]
/// begins at 0 and takes one step a token, in float32:
///   S = exp(rate) S;  S += dt x b^T;  y = S c + skip x
/// c and b [batch, length, groups, state] of one type; x [batch, length, heads,
/// head_dim], heads a multiple of groups: group i serves heads i * n .. i * n +
/// n - 1; rate (at most 0) and dt float32 [batch, length, heads]; skip float32
/// [heads]. The result is y [batch, length, heads, head_dim] in x's type.
mx::array ssd_scan(
    const mx::array& c,
    const mx::array& b,
    const mx::array& x,
    const mx::array& rate,
    const mx::array& dt,
    const mx::array& skip);

/// Each channel of x [batch, length, channels] convolved with its own row of
/// weight [channels, width], plus its bias [channels], and then silu(x) = x /
/// (1 + exp(-x)) of that with `silu`. The row's last value meets the position
/// itself and the first the position width - 1 before it; in front of x stand
/// zeros. The result has x's shape and type and is rounded once.
mx::array causal_conv(
    const mx::array& x,
    const mx::array& weight,
    bool silu = false,
    const std::optional<mx::array>& bias = std::nullopt);

struct QueriesAndKeys {
  mx::array q;
  mx::array k;
};

/// What the models give to gated_delta: x / sqrt(|x|^2 + eps) over the last
/// axis of q and k [..., key_dim]; q is divided by sqrt(key_dim), too. Types
/// stay.
QueriesAndKeys
normalize_keys(const mx::array& q, const mx::array& k, float eps = 1e-6f);

struct DeltaGates {
  mx::array g;
  mx::array beta;
};

/// g = exp(-exp(a_log) * log(1 + exp(a + dt_bias))) and beta = 1 / (1 +
/// exp(-b)), both float32 [batch, length, heads] from a and b of that shape;
/// a_log and dt_bias [heads]. All are floating, and float32 is computed in.
DeltaGates delta_gates(
    const mx::array& a,
    const mx::array& b,
    const mx::array& a_log,
    const mx::array& dt_bias);

}  // namespace pennyweight::ops
