#pragma once

#include <cstdint>
#include <vector>

#include "kernels/types.h"

/// CPU kernels on raw pointers. Strides count elements between rows; the last
/// axis is contiguous. Inputs and outputs do not overlap unless a kernel says
/// that they may. Threads are OpenMP's; a call from within a parallel region
/// runs on its caller's thread alone. Shapes are the caller's to check.
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

/// out [m, n] = x [m, k] * weight [n, k]^T + bias [n] + residual [m, n]; with
/// weight_by_depth the weight is [k, n] and not transposed.
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

/// A weight [rows, columns] in MLX's packed layout: value i of a row is bits
/// i * bits .. of its little-endian bit stream; scales and biases stand for
/// `group` neighbours. The rows of codes, scales and biases are contiguous.
/// Scales of the fp modes are bytes: e8m0 (mx, OCP MX 1.0), e4m3 (nvfp4).
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

/// out [rows, columns] = scale * code + bias, in float32 and rounded once, of
/// rows first_row .. first_row + rows - 1.
struct DequantizeArgs {
  QuantizedMatrix weight{};
  int64_t first_row = 0;
  int64_t rows = 0;
  Matrix out{};
};

/// As MatmulArgs with a packed weight, which is expanded by panels to x's
/// type (in float32 where m is small).
struct QuantizedMatmulArgs {
  int64_t m = 0;
  ConstMatrix x{};  // [m, weight.columns]
  QuantizedMatrix weight{};
  ConstVector bias{};      // optional
  ConstMatrix residual{};  // optional; may be `out` itself
  Matrix out{};            // [m, weight.rows]
};

/// out = x / sqrt(mean(x^2) + eps) * weight, by row.
struct RmsNormArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float eps = 0;
  ConstMatrix x{};
  ConstVector weight{};
  Matrix out{};
};

/// x and out [batch, length, heads, head_dim], heads and head_dim contiguous
/// in out; x's strides are free but for the last axis. See ops::RopeTable.
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
/// `heads` heads and `length` rows, k and v `kv_heads` and `keys`. A query
/// that may see no key gives zeros.
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
  const float* sinks = nullptr;  // [heads], a score more for each; optional
  DType type = DType::f32;
  HeadsView q{}, k{}, v{};
  void* out = nullptr;  // contiguous
};

/// out [batch, length, heads, value_dim] of the gated delta rule; see
/// ops::gated_delta. q and k have `key_heads` heads of key_dim values in
/// `type`, v has `heads` of value_dim in `value_type`, as out.
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
};

/// out [batch, length, channels]: each channel of x convolved with its own
/// row of weight [channels, width], the last tap at the output's position,
/// what stands before x being 0; then silu if asked for.
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
  void* out = nullptr;   // contiguous
};

/// silu and gelu: activation(gate) * up, gelu by its form with tanh, which is
/// x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)). clipped is gpt_oss's:
/// g sigmoid(1.702 g) (u + 1), g the gate and u up, g at most 7 and u within
/// -7 and 7.
enum class GateKind : uint8_t { silu, gelu, clipped };

/// out = what `kind` makes of gate and up. `out` may be `gate` or `up` itself.
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

/// Advances scoring state by a tile of columns first .. first + columns - 1;
/// see ops::score_update and score_state.h.
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

/// score_update on logits that are made a tile at a time and never stored.
struct ScoreMatmulArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t first = 0;
  HeadSide logits{};
  HeadSide reference{};              // optional: its x.data is null
  float scale = 1;                   // multiplies both sides' logits, capped
  const int32_t* targets = nullptr;  // [rows]
  float* state = nullptr;            // [rows, state_stride], in place
  int64_t state_stride = 0;
};

/// out [4, rows]: nll, kl, reference_nll, agrees (0 or 1).
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

/// For each part, one after the other in `out` [sum of m, n], float32:
/// out += a [rows, m]^T * b [rows, n]. Of a part that is b itself the upper
/// half is computed and copied to the lower.
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
