#pragma once

#include <cstdint>
#include <vector>

#include "kernels/types.h"

/// CPU kernels on raw pointers. A stride is the number of elements from one row
/// to the next; the last axis is contiguous. Inputs and outputs do not overlap
/// unless a kernel says that they may. A kernel uses the threads of threads.h;
/// called from within a task it runs on its caller's thread alone. The caller
/// has checked the shapes.
namespace pennyweight::kernels {

struct ConstMatrix {
  const void* data = nullptr;
  DType type = DType::f32;
  int64_t stride = 0;
};

struct Matrix {
  void* data = nullptr;
  DType type = DType::f32;
  int64_t stride = 0;
};

/// A vector in any floating type; data may be null where it is optional.
struct ConstVector {
  const void* data = nullptr;
  DType type = DType::f32;
};

/// out [m, n] = x [m, k] * weight [n, k]^T + bias [n] + residual [m, n]. With
/// weight_by_depth the weight is stored as [k, n] and is not transposed.
struct MatmulArgs {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  ConstMatrix x{};
  ConstMatrix weight{};
  ConstVector bias{};      // optional
  ConstMatrix residual{};  // optional; may be `out` itself
  Matrix out{};
  bool weight_by_depth = false;
};

enum class QuantMode : uint8_t { affine, mxfp4, mxfp8, nvfp4 };

/// A weight [rows, columns] in MLX's packed layout. Code i of a row is the
/// `bits` bits from bit i * bits on of the row's little-endian bit stream; each
/// `group` neighbours share a scale and a bias. The rows of codes, scales and
/// biases are contiguous. Scales of the fp modes are bytes: e8m0 for mxfp4 and
/// mxfp8 (OCP Microscaling Formats 1.0), e4m3 for nvfp4.
struct QuantizedMatrix {
  QuantMode mode = QuantMode::affine;
  int bits = 4;
  int group = 64;
  int64_t rows = 0;
  int64_t columns = 0;
  const void* codes = nullptr;
  const void* scales = nullptr;
  const void* biases = nullptr;   // affine only
  DType scale_type = DType::f32;  // of scales and biases, affine only
};

/// out [rows, columns] = scale * code + bias for the weight's rows first_row ..
/// first_row + rows - 1, computed in float32 and rounded once.
struct DequantizeArgs {
  QuantizedMatrix weight{};
  int64_t first_row = 0;
  int64_t rows = 0;
  Matrix out{};
};

/// MatmulArgs with a packed weight, of which some rows at a time are expanded
/// to x's type (to float32 where m is small).
struct QuantizedMatmulArgs {
  int64_t m = 0;
  ConstMatrix x{};  // [m, weight.columns]
  QuantizedMatrix weight{};
  ConstVector bias{};      // optional
  ConstMatrix residual{};  // optional; may be `out` itself
  Matrix out{};            // [m, weight.rows]
};

/// out = x / sqrt(mean(x^2) + eps) * weight, by row: row i takes the weight of
/// `columns` values that is the (i % weights)'th.
struct RmsNormArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float eps = 0;
  ConstMatrix x{};
  ConstVector weight{};
  Matrix out{};
  int64_t weights = 1;
};

/// Rotary embedding of x [batch, length, heads, head_dim], whose last axis is
/// contiguous; see ops::RopeTable.
struct RopeArgs {
  int64_t batch = 0;
  int64_t length = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t dims = 0;
  bool traditional = false;
  float input_scale = 1;
  int64_t offset = 0;
  const float* frequencies = nullptr;  // [dims / 2]
  DType type = DType::f32;
  const void* x = nullptr;
  int64_t x_batch_stride = 0;
  int64_t x_row_stride = 0;
  int64_t x_head_stride = 0;
  void* out = nullptr;  // contiguous
};

/// A tensor [batch, length, heads, head_dim]; head_dim is contiguous.
struct HeadsView {
  const void* data = nullptr;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;
  int64_t head_stride = 0;
};

/// out = softmax(scale * q k^T + mask) v; see ops::attention. q and out have
/// `heads` heads and `length` rows, k and v have `kv_heads` heads and `keys`
/// rows. The result of a query that may see no key is 0.
struct AttentionArgs {
  int64_t batch = 0;
  int64_t length = 0;
  int64_t keys = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1;
  bool causal = true;
  int64_t window = 0;
  float cap = 0;                 // scores: cap * tanh(score / cap)
  const float* sinks = nullptr;  // [heads], one more score each; optional
  DType type = DType::f32;
  HeadsView q{}, k{}, v{};
  void* out = nullptr;  // contiguous
};

/// What a token does to the state S [value_dim, key_dim] of a head:
///   delta  S = g S;  S += beta (v - S k) k^T;  y = S q
///   sum    S = exp(g) S;  S += beta v k^T;  y = S q + skip v
enum class ScanRule : uint8_t { delta, sum };

/// The gated delta rule and the scan of Mamba-2; see ops::gated_delta and
/// ops::ssd_scan. q and k have `key_heads` heads of key_dim values in `type`; v
/// and out [batch, length, heads, value_dim] are of `value_type`.
struct GatedDeltaArgs {
  int64_t batch = 0;
  int64_t length = 0;
  int64_t heads = 0;
  int64_t key_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  DType type = DType::f32;
  DType value_type = DType::f32;
  HeadsView q{}, k{}, v{};
  const float* g = nullptr;     // [batch, length, heads]
  const float* beta = nullptr;  // likewise
  void* out = nullptr;          // contiguous
  ScanRule rule = ScanRule::delta;
  const float* skip = nullptr;  // [heads], of the sum rule
};

/// out [batch, length, channels] is each channel of x convolved with its own
/// row of weight [channels, width], plus its bias where there is one, and then
/// silu of that with `silu`. The row's last value meets the output's own
/// position, those before it the positions before; in front of x stand zeros.
struct CausalConvArgs {
  int64_t batch = 0;
  int64_t length = 0;
  int64_t channels = 0;
  int64_t width = 0;
  bool silu = false;
  DType type = DType::f32;  // of x and out
  const void* x = nullptr;  // channels contiguous
  int64_t x_batch_stride = 0;
  int64_t x_row_stride = 0;
  ConstVector weight{};  // [channels * width]
  ConstVector bias{};    // [channels], or no data
  void* out = nullptr;   // contiguous
};

/// Gated activations of a gate g and an up-projection u:
///   silu     g sigmoid(g) u
///   gelu     g sigmoid(2 sqrt(2 / pi) (g + 0.044715 g^3)) u, gelu's tanh form
///   clipped  g sigmoid(1.702 g) (u + 1), gpt_oss's, where g is clipped to at
///            most 7 and u to within -7 and 7
///   relu     max(g, 0) u
///   none     g u
enum class GateKind : uint8_t { silu, gelu, clipped, relu, none };

/// out = the gated activation `kind`. `out` may be `gate` or `up` itself.
struct GatedActivationArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix gate{};
  ConstMatrix up{};
  Matrix out{};
  GateKind kind = GateKind::silu;
};
inline constexpr float kClippedAt = 7.0f;
inline constexpr float kClippedSlope = 1.702f;
inline constexpr float kGeluLinear = 1.5957691216057308f;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715f;

/// out [rows, columns] = softmax of x's rows. `out` may be x itself.
struct SoftmaxArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix x{};
  Matrix out{};
};

/// out [rows] = log(sum(exp(x))) of x's rows.
struct LogSumExpArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix x{};
  float* out = nullptr;
};

/// Brings the scoring state (see ops::score_linear and score_state.h) up to
/// date by a tile of logits: columns first .. first + columns - 1 of the
/// vocabulary.
struct ScoreArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t first = 0;
  ConstMatrix logits{};
  ConstMatrix reference{};           // optional
  const int32_t* targets = nullptr;  // [rows]
  float* state = nullptr;            // [rows, state_stride], in place
  int64_t state_stride = 0;
};

/// Logits [rows, columns] = x [rows, k] * weight [columns, k]^T + bias.
struct HeadSide {
  int64_t k = 0;
  ConstMatrix x{};
  ConstMatrix weight{};
  ConstVector bias{};  // optional
  float cap = 0;       // logits become cap * tanh(logits / cap); 0: they stay
};

/// ScoreArgs for logits that are made a tile at a time and never stored as a
/// whole.
struct ScoreMatmulArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t first = 0;
  HeadSide logits{};
  HeadSide reference{};  // optional: its x.data is null
  float scale = 1;       // multiplies both sides' logits, after the cap
  const int32_t* targets = nullptr;  // [rows]
  float* state = nullptr;            // [rows, state_stride], in place
  int64_t state_stride = 0;
};

/// What a scoring state comes to once it has seen the whole vocabulary: out [4,
/// rows] holds nll, kl, reference_nll and agrees (0 or 1) of ops::Scores.
struct ScoreFinishArgs {
  int64_t rows = 0;
  const float* state = nullptr;
  int64_t state_stride = 0;
  float* out = nullptr;
};

/// out = a - b [count], the differences of float32 rounded to out's type.
struct SubtractArgs {
  int64_t count = 0;
  const float* a = nullptr;
  const float* b = nullptr;
  DType out_type = DType::f32;
  void* out = nullptr;
};

/// out [columns] += the sum over rows of |x [rows, columns]|.
struct AddMagnitudesArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix x{};
  float* out = nullptr;
};

/// out [columns, rows], its rows out_stride apart, = x [rows, columns]
/// transposed, in x's type.
struct TransposeArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix x{};
  void* out = nullptr;
  int64_t out_stride = 0;
};

/// For each part out += a [rows, m]^T * b [rows, n]; the parts' products stand
/// one below the other in `out` [sum of m, n], float32. Where a is b itself,
/// the upper half is computed and copied to the lower.
struct GramArgs {
  struct Part {
    int64_t m = 0;
    ConstMatrix a{};
  };
  int64_t rows = 0;
  int64_t n = 0;
  ConstMatrix b{};
  std::vector<Part> parts;
  Matrix out{};
};

/// Each kernel of the list, run by the active choice's implementation (see
/// dispatch.h).
#define KERNEL(name, Args) \
  struct Args;             \
  void name(const Args& args);
#define KERNEL_FOR_ALL(name, Args) KERNEL(name, Args)
#include "kernels/kernel_list.def"

}  // namespace pennyweight::kernels
