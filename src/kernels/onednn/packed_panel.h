#pragma once

#include "kernels/access.h"
#include "kernels/onednn/strips.h"
#include "kernels/scratch.h"

namespace pennyweight::kernels::onednn {

inline constexpr size_t kStripLine = 64;

struct Span {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const {
    return end - begin;
  }
};

/// The part of x that begins at [row, column].
inline ConstMatrix at(const ConstMatrix& x, int64_t row, int64_t column) {
  return from_column(from_row(x, row), column);
}

/// The packed order's step in depth.
int64_t depth_step(DType type);

/// to [columns, rows], whose rows are `stride` apart, = x [rows, columns]
/// transposed.
void transpose_to_float(
    int64_t rows,
    int64_t columns,
    const ConstMatrix& x,
    float* to,
    int64_t stride);

/// A part of the weight in oneDNN's order: blocks of columns, each [depth, 64],
/// or narrower where there are less in all; of bfloat16 in pairs of rows.
class PackedPanel {
 public:
  /// The values lie in `scratch`; all outlive it.
  PackedPanel(
      const StripArgs& args,
      Span columns,
      Span depth,
      Scratch& scratch);

  /// The packed columns from `column` on, which begins a block.
  ConstMatrix from(int64_t column) const;

 private:
  void pack(int64_t column) const;
  void pack_pairs(int64_t column, int64_t count, BFloat16* to) const;
  void transpose_pairs(int64_t column, int64_t count, BFloat16* to) const;
  void pack_floats(int64_t column, int64_t count, float* to) const;

  const MatmulArgs& args_;
  DType type_;
  Span columns_, depth_;
  int64_t rows_;
  int64_t width_;
  void* values_;
};

}  // namespace pennyweight::kernels::onednn
