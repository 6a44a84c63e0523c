#include <algorithm>

#include "kernels/access.h"
#include "kernels/tiles.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kMostRows = 512;
constexpr int64_t kFewestRows = 128;
constexpr int64_t kRowStep = 16;
constexpr int64_t kColumnStep = 64;
constexpr int64_t kWanted = 32;  // tiles
// Multiplications of a tile: some 50 microseconds of a core, and milliseconds.
constexpr int64_t kLeastWork = int64_t{1} << 23;
constexpr int64_t kMostWork = int64_t{1} << 28;

/// The least multiple of `step` that cuts `size` into as few parts as `most`
/// does.
int64_t even_part(int64_t size, int64_t most, int64_t step) {
  return round_up(divide_up(size, divide_up(size, most)), step);
}

}  // namespace

MatmulArgs
block_of(const MatmulArgs& args, const Stretch& rows, const Stretch& columns) {
  MatmulArgs block = args;
  block.m = std::min(rows.count, args.m - rows.first);
  block.n = std::min(columns.count, args.n - columns.first);
  block.x = from_row(args.x, rows.first);
  block.weight = args.weight_by_depth ? from_column(args.weight, columns.first)
                                      : from_row(args.weight, columns.first);
  if (args.bias.data) {
    block.bias.data = advance(args.bias.data, args.bias.type, columns.first);
  }
  block.residual =
      from_column(from_row(args.residual, rows.first), columns.first);
  block.out = from_column(from_row(args.out, rows.first), columns.first);
  return block;
}

// Rows share the weight's packing, which each task does for itself: columns
// are cut first.
ProductTiles product_tiles(int64_t m, int64_t n, int64_t k) {
  const int64_t work = std::clamp(m * n * k / kWanted, kLeastWork, kMostWork);
  int64_t rows = even_part(m, kMostRows, kRowStep);
  const int64_t fitting = work / (rows * std::max<int64_t>(1, k));
  const int64_t columns = even_part(
      n, std::max(kColumnStep, round_up(fitting, kColumnStep)), kColumnStep);
  const int64_t across = divide_up(n, columns);
  while (rows >= 2 * kFewestRows && divide_up(m, rows) * across < kWanted &&
         rows * columns * k >= 2 * kLeastWork) {
    rows = round_up(rows / 2, kRowStep);
  }
  return {std::min(rows, m), std::min(columns, n)};
}

}  // namespace pennyweight::kernels
