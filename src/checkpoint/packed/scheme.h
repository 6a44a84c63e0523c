#pragma once

#include <string>
#include <vector>

#include "checkpoint/packed/packed_parts.h"

namespace pennyweight {

/// The rows and columns of a matrix that share a scale; 0 stands for all.
struct ScaleBlock {
  int64_t rows = 1;
  int64_t columns = 0;
};

/// The rounding of weights that an entry describes.
struct PackedScheme {
  bool floating = false;  // FP8 or FP4 instead of integers
  int bits = 0;
  ScaleBlock block;
  bool symmetric = true;
};

/// The shape of the scales of a matrix [..., rows, columns].
mx::Shape scales_shape(const mx::Shape& matrix, const ScaleBlock& block);

/// In words: "with one scale", "with a scale a row", "in groups of 32", "in
/// blocks of 128 x 128".
std::string describe_block(const ScaleBlock& block);

/// Where the scale of each value of a matrix, or a stack of them, stands.
class ScaleGrid {
 public:
  ScaleGrid(const mx::Shape& matrix, const ScaleBlock& block);

  /// The place of the first scale of a row; a stack's rows are counted one
  /// after the other.
  size_t first(int64_t row) const {
    const int64_t entry = row / rows_;
    return static_cast<size_t>(
        (entry * grid_rows_ + row % rows_ / block_.rows) * grid_columns_);
  }
  /// values[c] *= scales[first(row) + c / block_columns()] * factor
  void multiply(
      int64_t row,
      const FloatReader& scales,
      float* values,
      float factor = 1) const;
  int64_t block_columns() const {
    return block_.columns;
  }

 private:
  int64_t rows_;
  int64_t columns_;
  ScaleBlock block_;
  int64_t grid_rows_;
  int64_t grid_columns_;
};

/// Adds each matrix of F8_E4M3 codes X whose scales are named X + `scales` from
/// "_scale" on (".weight_scale_inv" beside ".weight"). Scales have the shape
/// for one of `blocks`, or there is one for each matrix. With `always_bfloat16`
/// matrices expand to bfloat16, and otherwise as expanded_type() says.
void add_fp8(
    PackedParts& parts,
    const std::string& scales,
    const std::vector<ScaleBlock>& blocks,
    bool always_bfloat16);

/// Adds matrices of integers, which stand one by one (.weight int8) or several
/// in a word (.weight_packed), each by the scheme whose shapes it has.
void add_integers(PackedParts& parts, const std::vector<PackedScheme>& schemes);

/// Adds matrices of E2M1 codes, two in a byte, under names that end with
/// `codes`. Scales are of groups of 16 (E4M3, and a second one for the whole
/// matrix under a name that ends with `whole`) or of groups of 32 (E8M0). With
/// `whole_divides` a group's scale is divided by the second one, and otherwise
/// multiplied.
void add_fp4(
    PackedParts& parts,
    const std::string& codes,
    const std::string& whole,
    bool whole_divides);

/// Adds matrices in MLX's own nvfp4 with a scale of the whole beside them,
/// X.global_scale: the magnitude of the matrix's largest value. mlx-lm packs
/// experts in this way when it is asked to.
void add_global_fp4(PackedParts& parts);

}  // namespace pennyweight
