#include <algorithm>

#include "kernels/access.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kMostRows = 256;
constexpr int64_t kFewestRows = 128;
constexpr int64_t kRowStep = 16;
constexpr int64_t kColumnStep = 64;
// Tiles are cut further while there are fewer than kSome and one takes more
// than kLong multiplications, or fewer than kMany and one takes more than
// kVeryLong.
constexpr int64_t kSome = 8;
constexpr int64_t kMany = 32;
constexpr int64_t kLong = int64_t{1} << 25;
constexpr int64_t kVeryLong = int64_t{1} << 27;

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

// Each task packs its part of the weight for itself, which pays if it has many
// rows. Columns are cut only where rows do not make enough tiles, since the
// rows of such tiles lie apart in the result.
ProductTiles product_tiles(int64_t m, int64_t n, int64_t k) {
  const int64_t wanted = std::clamp(
      round_up(divide_up(m, kSome), kRowStep), kFewestRows, kMostRows);
  const int64_t rows = std::min(m, wanted);
  const int64_t down = divide_up(m, rows);
  int64_t columns = n;
  while (columns >= 2 * kColumnStep) {
    const int64_t tiles = down * divide_up(n, columns);
    const int64_t work = rows * columns * k;
    if (!(tiles < kSome && work > kLong) &&
        !(tiles < kMany && work > kVeryLong)) {
      break;
    }
    columns = round_up(columns / 2, kColumnStep);
  }
  return {rows, columns};
}

}  // namespace pennyweight::kernels
