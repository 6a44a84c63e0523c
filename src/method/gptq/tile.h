#pragma once

#include <cstdint>
#include <vector>

#include "method/gptq/factor.h"
#include "method/gptq/grid.h"
#include "method/gptq/lanes.h"

namespace pennyweight::gptq {

/// Sums over a tile's rows, and counts.
struct TileFigures {
  double loss_nearest = 0;
  double loss_rounded = 0;
  double loss = 0;
  double weight = 0;  // |W|^2
  double shift = 0;   // |T - W|^2
  int64_t moved = 0;
  int64_t judged = 0;  // rows that the losses are of
  int rounds = 0;
};

/// What all tiles of one gptq_quantize share.
struct TileSetup {
  const GptqHessian::Factor* factor;
  GridFormat format;
  int64_t group_size;
  const GptqOptions* options;
  std::vector<float> group_sums;  // H 1_g [groups, columns], with the damping
  std::vector<float> importance;  // H_ii, damped [columns]
};

/// kLanes rows of a weight on their way to codes; buffers are [column][lane].
class RowTile {
 public:
  explicit RowTile(const TileSetup& setup);

  /// W and T of the tile's rows <= kLanes [rows, columns]. Lanes without a row
  /// are zero.
  void load(const float* weight, const float* target, int64_t rows);
  /// GPTQ's pass, with its losses only if `judge`; then refit and descent,
  /// given its figures.
  TileFigures round(bool judge);
  TileFigures improve(TileFigures figures);
  /// Writes the tile's rows, which stand from `first` on.
  void store(int64_t first, int64_t rows, GptqResult& to) const;

 private:
  void nearest();
  void fit_grids();
  void round_all();
  void round_columns(
      int64_t first,
      int64_t last,
      int64_t span,
      const float* ordered,
      const int64_t* groups,
      float* moved);
  void take_grids(
      int64_t first,
      int64_t columns,
      const float* target,
      const float* moved);
  /// What the loss, over the damped H, has lost. Without keep_gradient G is
  /// out of step after it.
  double refit(bool keep_gradient);
  double refit_window(int64_t first, int64_t last, bool keep_gradient);
  int64_t descend();
  int64_t descend_span(int64_t begin, int64_t size);
  /// E = T - Q and G = H E.
  void take_gradient();
  /// tr over the undamped Hessian; needs error_ and gradient_ in step.
  double loss() const;
  Grids grids();
  LaneGrid grid_of(int64_t group);
  GroupWeights target_of(int64_t group) const;

  const TileSetup& setup_;
  const GptqHessian::Factor& factor_;
  const int64_t columns_;
  const int64_t groups_;
  std::vector<int64_t> group_of_;  // of each column, file order
  std::vector<float> target_;      // T
  std::vector<float> codes_;
  std::vector<float> error_;
  std::vector<float> gradient_;
  std::vector<float> scales_;  // [groups][lane]
  std::vector<float> biases_;
  std::vector<float> work_, more_;
  double weight_energy_ = 0, shift_energy_ = 0;
  int64_t rows_ = 0;
};

/// T of the rows of a weight: W + share * C H^-1. The shift's `output` stands
/// at the first row. On all threads.
std::vector<float> shifted_rows(
    const GptqHessian::Factor& factor,
    const float* weight,
    int64_t rows,
    const GptqShift& shift,
    double share);

/// Room for a weight [rows, columns].
GptqResult make_result(int64_t rows, int64_t columns, int64_t group_size);

/// Writes codes [columns][kLanes] and grids [groups][kLanes] of `rows` rows to
/// the result's rows from `first` on.
void store_lanes(
    Levels levels,
    int64_t first,
    int64_t rows,
    const float* codes,
    const float* scales,
    const float* biases,
    GptqResult& to);

inline constexpr int64_t kBlock = 128;  // columns between lazy updates
/// Of rows longer than kNarrow, which no cache holds: columns between updates
/// of all others. A multiple of all blocks.
inline constexpr int64_t kSpan = 512;
inline constexpr int64_t kNarrow = 2048;

inline size_t lanes_of(int64_t count) {
  return size_t(count * kLanes);
}

/// Sum over all lanes of x[i] y[i], i < count, in float64 above short runs.
double total_dot(const float* x, const float* y, int64_t count);

/// out [m][kLanes] = x [m, k] by stride times y [k][kLanes], plus out.
void add_product(
    const float* x,
    int64_t stride,
    int64_t m,
    int64_t k,
    const float* y,
    float* out);

}  // namespace pennyweight::gptq
