#pragma once

#include <string>
#include <vector>

#include "checkpoint/packed/packed_parts.h"

namespace pennyweight {

/// Of how many rows and columns of a matrix one scale is; 0: of all.
struct ScaleBlock {
  int64_t rows = 1;
  int64_t columns = 0;
};

/// How an entry says that weights are rounded.
struct PackedScheme {
  bool floating = false;
  int bits = 0;
  ScaleBlock block;
  bool symmetric = true;
};

/// The shape that scales have, of a matrix [.., rows, columns].
mx::Shape scales_shape(const mx::Shape& matrix, const ScaleBlock& block);

/// In words: "in blocks of 128 x 128", "by rows", "in groups of 32".
std::string describe_block(const ScaleBlock& block);

/// Where the scale of each value of a matrix, or a stack of them, stands.
class ScaleGrid {
 public:
  ScaleGrid(const mx::Shape& matrix, const ScaleBlock& block);

  /// Of a row of all.
  size_t first(int64_t row) const {
    const int64_t entry = row / rows_;
    return static_cast<size_t>(
        (entry * grid_rows_ + row % rows_ / block_.rows) * grid_columns_);
  }
  /// values[c] *= scales[first(row) + c / columns of a block]
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

/// F8_E4M3 codes beside scales, all that end with `scales`, which the name of
/// the codes lacks (".weight_scale_inv" of ".weight"). Each has the form of one
/// of `blocks`, or a scale for all of a matrix.
void add_fp8(
    PackedParts& parts,
    const std::string& scales,
    const std::vector<ScaleBlock>& blocks,
    bool always_bfloat16);

/// Integers that stand one by one (.weight int8) or in words (.weight_packed).
void add_integers(PackedParts& parts, const std::vector<PackedScheme>& schemes);

/// E2M1 codes, two in a byte, with scales in groups of 16 (E4M3, and one of the
/// whole in `whole`) or of 32 (E8M0). Codes stand in names that end with
/// `codes`.
void add_fp4(
    PackedParts& parts,
    const std::string& codes,
    const std::string& whole,
    bool whole_divides);

/// MLX's own nvfp4 with a scale of each matrix beside it, as mlx-lm packs
/// experts that are asked for so (X.global_scale, the largest value's size).
void add_global_fp4(PackedParts& parts);

}  // namespace pennyweight
