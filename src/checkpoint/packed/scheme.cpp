#include "checkpoint/packed/scheme.h"

#include <algorithm>

namespace pennyweight {

namespace {

ScaleBlock settled(const mx::Shape& matrix, const ScaleBlock& block) {
  const size_t dimensions = matrix.size();
  return {
      block.rows > 0 ? block.rows : matrix[dimensions - 2],
      block.columns > 0 ? block.columns : matrix[dimensions - 1]};
}

}  // namespace

mx::Shape scales_shape(const mx::Shape& matrix, const ScaleBlock& block) {
  const auto whole = settled(matrix, block);
  auto shape = matrix;
  const size_t last = shape.size() - 1;
  shape[last - 1] = int(divide_up(shape[last - 1], whole.rows));
  shape[last] = int(divide_up(shape[last], whole.columns));
  return shape;
}

std::string describe_block(const ScaleBlock& block) {
  if (block.rows == 0) {
    return "with one scale";
  }
  if (block.rows > 1) {
    return "in blocks of " + std::to_string(block.rows) + " x " +
        std::to_string(block.columns);
  }
  return block.columns == 0 ? "with a scale a row"
                            : "in groups of " + std::to_string(block.columns);
}

ScaleGrid::ScaleGrid(const mx::Shape& matrix, const ScaleBlock& block)
    : rows_(matrix[matrix.size() - 2]),
      columns_(matrix.back()),
      block_(settled(matrix, block)),
      grid_rows_(divide_up(rows_, block_.rows)),
      grid_columns_(divide_up(columns_, block_.columns)) {}

void ScaleGrid::multiply(
    int64_t row,
    const FloatReader& scales,
    float* values,
    float factor) const {
  const size_t at = first(row);
  for (int64_t group = 0; group < grid_columns_; ++group) {
    const int64_t begin = group * block_.columns;
    const int64_t end = std::min(columns_, begin + block_.columns);
    const float scale = scales[at + static_cast<size_t>(group)] * factor;
    for (int64_t column = begin; column < end; ++column) {
      values[column] *= scale;
    }
  }
}

}  // namespace pennyweight
