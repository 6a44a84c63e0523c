#pragma once

#include <cstdint>

/// The inner loops of GPTQ, on kLanes rows at a time side by side: element
/// [i][lane] of a buffer is column i of a row. Each lane's result depends on
/// that lane alone. All buffers are float32. A code is held as the number
/// that it stands for: 0 .. top, or a value of e2m1 or e4m3.
namespace pennyweight::gptq {

inline constexpr int64_t kLanes = 64;

/// The numbers that codes stand for.
enum class Levels : uint8_t { affine, e2m1, e4m3 };

/// The values of one group [size][kLanes], and what an error of each weighs
/// [size] where that is asked for.
struct GroupWeights {
  const float* values;
  int64_t size;
  const float* importance = nullptr;  // h
};

/// The grids of a tile's rows, [groups][kLanes] each.
struct Grids {
  const float* scales;
  const float* biases;  // zeros for the fp levels
  float top;            // the largest level: 2^bits - 1, 6 or 448
  Levels levels;
};

/// One block of columns, rounded one after the other with feedback:
///   u_i = t_i + sum_{j<i} A_ij e_j,  q_i = round((u_i - b) / s) in 0 .. top,
///   e_i = t_i - (s q_i + b).
struct RoundBlock {
  int64_t columns;
  const float* feedback;  // A of the block, [columns][columns] by stride
  int64_t feedback_stride;
  const int64_t* groups;  // [columns]
  Grids grids;
  const float* target;  // t
  float* moved;         // u without the block's own errors; overwritten
  float* codes;         // out: q
  float* error;         // out: e
};
void round_block(const RoundBlock& block);

/// One block of columns of coordinate descent. With G = (T - Q) H, the best
/// code of column c while all others stay is q + G_c / (s H_cc), rounded;
/// the move then changes G of the block's later columns.
struct DescendBlock {
  int64_t columns;
  const float* hessian;  // H of the block, by stride
  int64_t hessian_stride;
  const int64_t* groups;  // [columns]
  Grids grids;
  float* gradient;  // G, overwritten
  float* codes;     // q, in place
  float* moves;     // out: weight before less weight after
};
/// Returns how many codes have changed.
int64_t descend_block(const DescendBlock& block);

/// Sums over one group of a grid's codes q and weighted errors, each [kLanes]:
/// loss = sum h (w - s q - b)^2, and with those codes the sums of the normal
/// equations of s and b. `grid` is the group's own.
struct GridSums {
  float loss[kLanes];
  float qq[kLanes], q[kLanes];  // sum h q^2, sum h q
  float qw[kLanes], w[kLanes];  // sum h q w, sum h w
};
GridSums grid_sums(const GroupWeights& weights, const Grids& grid);

/// out[lane] = sum_i x[i][lane] and sum_i x[i][lane] y[i][lane].
void lane_sums(const float* x, int64_t count, float* out);
void lane_dots(const float* x, const float* y, int64_t count, float* out);

/// x_j -= sum_{i>j} A_ij x_i for j = columns-1 .. 0 (transposed), or
/// x_i -= sum_{j<i} A_ij x_j for i = 0 .. columns-1.
void solve_block(
    const float* feedback,
    int64_t stride,
    int64_t columns,
    bool transposed,
    float* x);

}  // namespace pennyweight::gptq
