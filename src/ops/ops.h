#pragma once

#include <mlx/array.h>

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pennyweight {
namespace mx = mlx::core;
}

/// What the model calls. On a GPU stream each function is MLX's own op; on a
/// CPU stream it is an MLX primitive over kernels/, threaded, lazy like any
/// MLX op. Floating inputs may be float32, bfloat16 or float16; all sums are
/// kept in float32. A wrong shape or dtype is an invalid_argument Error.
/// mx::vjp goes through linears (by x, weight, bias; of a packed affine weight
/// by scales and biases), norms, rope, attention and activations; what only
/// measures has no gradient (not_supported Error).
namespace pennyweight::ops {

/// Lets MLX keep this many bytes of freed results on a CPU, since fresh pages
/// for a result cost more than most of these functions do. To be called once,
/// at the start.
void keep_freed_memory(size_t bytes = size_t(256) << 20);

/// Entries first .. first + count - 1 of x along its first axis, without a
/// copy.
mx::array slice_rows(const mx::array& x, int first, int count);

/// x [..., in] times weight [out, in] transposed, plus bias [out].
/// The result is [..., out] in `out_dtype`, x's dtype when not given.
mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias = std::nullopt,
    std::optional<mx::Dtype> out_dtype = std::nullopt);

/// A weight in MLX's packed layout: codes uint32 [out, in * bits / 32],
/// scales [out, in / group_size] (uint8 for the fp modes), biases likewise
/// (affine only). mode is "affine", "mxfp4", "mxfp8" or "nvfp4".
struct QuantizedWeight {
  mx::array codes;
  mx::array scales;
  std::optional<mx::array> biases;
  int group_size;
  int bits;
  std::string mode;
};

/// The dense weight [out, in] of `weight` in `dtype`: scale * code + bias
/// computed in float32 and rounded once.
mx::array dequantize(const QuantizedWeight& weight, mx::Dtype dtype);

/// The gradients by scales and biases of `weight`, given dw float32 [out, in],
/// the gradient by the dense weight: the sums over each group of dw * code and
/// of dw, float32 [out, in / group_size] each. The weight has to be affine
/// (not_supported Error).
struct GroupGradients {
  mx::array scales;
  mx::array biases;
};
GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw);

/// As linear(), from a packed weight, which is expanded a panel at a time.
mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias = std::nullopt,
    std::optional<mx::Dtype> out_dtype = std::nullopt);

/// residual [..., out] + linear(x, weight, bias), rounded once, to the
/// residual's type. On a CPU the result is in the residual's own memory where
/// nothing else needs that.
mx::array linear_add(
    const mx::array& residual,
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias = std::nullopt);
mx::array quantized_linear_add(
    const mx::array& residual,
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias = std::nullopt);

/// Adds to sum, float32 [sum of m, n], the product of each part a [..., m],
/// transposed, with b [..., n], over all axes but the last; the parts' products
/// stand one below the other. Where a part is the very array b, its rows of sum
/// must be symmetric. On a CPU the result is in sum's own memory where nothing
/// else needs that.
mx::array gram_add(
    const mx::array& sum,
    const std::vector<mx::array>& parts,
    const mx::array& b);

/// sum + x, both float32 of one shape. On a CPU the result is in sum's own
/// memory where nothing else needs that.
mx::array accumulate(const mx::array& sum, const mx::array& x);

/// sum [n] float32 plus the sum of |x [..., n]| over all other axes.
mx::array magnitudes_add(const mx::array& sum, const mx::array& x);

/// a - b of two float32 arrays of one shape, rounded to `dtype`.
mx::array difference(const mx::array& a, const mx::array& b, mx::Dtype dtype);

/// x / sqrt(mean(x^2) + eps) * weight over the last axis; the result is in
/// `out_dtype`, x's dtype when not given (x may be a float32 residual stream
/// and the result bfloat16). The weight is [columns], or [groups, columns] as
/// x's last two axes are.
mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    std::optional<mx::Dtype> out_dtype = std::nullopt);

/// Rotary embedding, as mx::fast::rope computes it. `frequencies` float32
/// [dims / 2] are the angles per position, theta_i = position * frequencies_i
/// (the reciprocal of what mx::fast::rope calls freqs).
struct RopeTable {
  mx::array frequencies;
  int dims;                  // the first dims of each head are rotated
  bool traditional = false;  // pairs (2i, 2i + 1) instead of (i, i + dims / 2)
  float input_scale = 1.0f;  // multiplies the rotated part (yarn, longrope)
};

/// x [batch, length, heads, head_dim] at positions offset .. offset+length-1.
mx::array rope(const mx::array& x, const RopeTable& table, int offset = 0);

struct AttentionOptions {
  float scale = 1.0f;
  bool causal = true;
  int window = 0;  // keys at distance >= window are masked; 0: no window
  float cap = 0;   // scores become cap * tanh(score / cap); 0: they stay
  /// float32 [heads]: one more score for each head, of a key whose value is 0.
  std::optional<mx::array> sinks = std::nullopt;
};

/// Softmax(scale * q k^T + mask) v, grouped-query: q [batch, length, heads,
/// head_dim], k and v [batch, keys, kv_heads, head_dim], heads a multiple of
/// kv_heads; the last query stands at the last key. Never holds more than a
/// tile of the score matrix. Result [batch, length, heads, head_dim].
mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options);

/// silu(gate) * up, elementwise.
mx::array swiglu(const mx::array& gate, const mx::array& up);
/// gelu(gate) * up, the gelu with tanh.
mx::array geglu(const mx::array& gate, const mx::array& up);
/// gpt_oss's: g * sigmoid(1.702 g) * (u + 1), g the gate, at most 7, and u up,
/// within -7 and 7.
mx::array clipped_glu(const mx::array& gate, const mx::array& up);
/// max(x, 0)^2.
mx::array relu2(const mx::array& x);
/// a * b, of one shape and type.
mx::array product(const mx::array& a, const mx::array& b);

/// The same with the exact gelu, x (1 + erf(x / sqrt(2))) / 2.
mx::array gelu_erf_glu(const mx::array& gate, const mx::array& up);

/// Activations without a gate, in x's type.
mx::array gelu(const mx::array& x);  // with tanh
mx::array gelu_erf(const mx::array& x);
mx::array relu2(const mx::array& x);  // relu(x)^2
/// Apertus' (arXiv 2411.13010): with a softplus of alpha_p, and beta plus one
/// of alpha_n, p x^2 + beta x above 0, and below it
/// n (exp(min(x, eps)) - 1 - x) + beta x. The parameters are float32 scalars.
mx::array xielu(
    const mx::array& x,
    const mx::array& alpha_p,
    const mx::array& alpha_n,
    const mx::array& beta,
    const mx::array& eps);

/// cap * tanh(logits / cap); the logits where cap is 0.
mx::array cap_logits(const mx::array& logits, float cap);

/// Softmax over the last axis.
mx::array softmax(const mx::array& x);

/// Scores of rows whose vocabulary arrives in tiles, so that no more logits
/// than a tile's are ever held. The state, float32 [rows, kScoreState], is made
/// by score_start, brought up to date by score_linear for each tile (columns
/// first .. first + n - 1 of the vocabulary), and turned into scores by
/// score_finish.
inline constexpr int kScoreState = 16;
mx::array score_start(int rows);

/// Rows first .. first + n - 1 of a head: x [rows, in], weight [n, in]. Its
/// logits are linear(x, weight, bias) in float32, capped as by cap_logits.
struct HeadRows {
  mx::array x;
  mx::array weight;
  std::optional<mx::array> bias = std::nullopt;
  float cap = 0;
};
/// For the logits of a head, multiplied by `scale`, of which on a CPU only as
/// many exist at a time as the caches hold; `reference` may be absent. targets
/// int32 [rows]: the next token of each row.
mx::array score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first,
    float scale = 1);

struct Scores {
  mx::array nll;  // float32 [rows], -log p(target)
  mx::array kl;   // float32 [rows], KL(reference || model); 0 without reference
  mx::array reference_nll;  // float32 [rows]; 0 without reference
  mx::array agrees;         // bool [rows], same argmax; true without reference
};
Scores score_finish(const mx::array& state);

}  // namespace pennyweight::ops
