#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include "kernels/onednn/strips.h"

#include <algorithm>
#include <cstring>

#include "kernels/access.h"
#include "kernels/onednn/packed_panel.h"
#include "kernels/onednn/product.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels::onednn {

namespace {

constexpr int64_t kStripRows = 128;
constexpr int64_t kFewestTaskRows = 32;
constexpr int64_t kRowStep = 16;
constexpr int64_t kChunkColumns = 512;     // of a strip's result at a time
constexpr int64_t kPanelValues = 2 << 20;  // of the packed weight
constexpr int64_t kSumValues = 2 << 20;    // of sums that are still added to
// A depth beyond the first is taken in parts of about the second.
constexpr int64_t kWholeDepth = 1536;
constexpr int64_t kPartDepth = 1024;
// With fewer rows packing costs more than it brings.
constexpr int64_t kFewestRows = 64;
constexpr int64_t kFewestStripColumns = 32;
constexpr int64_t kFewestDepth = 32;

/// The number of column blocks that are multiplied on their own. Columns that
/// are left over, fewer than a block, go with the last one.
int64_t whole_blocks(Span columns) {
  return std::max<int64_t>(1, columns.size() / kPackedColumns);
}

/// Tile loads of AMX that cross cache lines cost it a third of its rate.
bool is_aligned(const ConstMatrix& x) {
  return reinterpret_cast<uintptr_t>(x.data) % kStripLine == 0;
}

class Strips {
 public:
  explicit Strips(const StripArgs& args)
      : args_(args), product_(args.product) {}

  void run() {
    const int64_t k = product_.k;
    const int64_t parts = whole_depth() ? 1 : divide_up(k, kPartDepth);
    int64_t part = round_up(divide_up(k, parts), depth_step(args_.type));
    // Rows of a transposed strip an even number of cache lines apart would
    // share places in the nearest cache.
    if (args_.type == DType::bf16 && parts > 1 &&
        part / kPackedDepth % 2 == 0) {
      part += kPackedDepth;
    }
    const int64_t width = std::max(
        kPackedColumns, kPanelValues / part / kPackedColumns * kPackedColumns);
    for (int64_t column = 0; column < product_.n; column += width) {
      const Span columns{column, std::min(product_.n, column + width)};
      // Sums of several parts that are not the result's own need memory.
      const bool sums = parts > 1 && product_.out.type != DType::f32;
      const int64_t rows =
          sums ? std::max(kStripRows, kSumValues / columns.size()) : product_.m;
      for (int64_t row = 0; row < product_.m; row += rows) {
        run_rows({row, std::min(product_.m, row + rows)}, columns, part);
      }
    }
  }

 private:
  /// Where the products of rows from `row` and columns from `column` on are
  /// added up.
  struct Sums {
    Matrix values;
    int64_t row = 0;
    int64_t column = 0;

    Matrix at(int64_t r, int64_t c) const {
      return from_column(from_row(values, r - row), c - column);
    }

    /// Whether a product of these columns can be written here, since oneDNN's
    /// fast products leave no gaps between rows.
    bool take(Span columns) const {
      return values.data && values.stride == columns.size();
    }
  };

  /// bfloat16 that is multiplied as it is needs no parts: a strip fits the
  /// cache at any depth.
  bool whole_depth() const {
    return product_.k <= kWholeDepth ||
        (args_.type == DType::bf16 && !args_.x_by_depth);
  }

  void run_rows(Span rows, Span columns, int64_t part) {
    thread_local Scratch packed, summed;
    const bool one_part = part >= product_.k;
    Sums sums;
    if (product_.out.type == DType::f32 ||
        (one_part && product_.out.type == args_.type)) {
      sums = {product_.out, 0, 0};
    } else if (!one_part) {
      const Matrix values{
          summed.get<float>(rows.size() * columns.size()),
          DType::f32,
          columns.size()};
      sums = {values, rows.begin, columns.begin};
    }
    for (int64_t begin = 0; begin < product_.k; begin += part) {
      const Span depth{begin, std::min(product_.k, begin + part)};
      const PackedPanel panel(args_, columns, depth, packed);
      each_strip(rows, columns, [&](Span strip, Span some) {
        run_strip(strip, some, depth, panel, sums);
      });
    }
  }

  /// Shares the strips among threads, and columns, too, where there are fewer
  /// strips than threads.
  template <class F>
  void each_strip(Span rows, Span columns, F&& f) {
    const int64_t threads = thread_count();
    const int64_t most = divide_up(rows.size(), kFewestTaskRows);
    const int64_t wanted =
        round_up(divide_up(rows.size(), kStripRows), threads);
    const int64_t step =
        round_up(divide_up(rows.size(), std::min(most, wanted)), kRowStep);
    const int64_t strips = divide_up(rows.size(), step);
    const int64_t blocks = whole_blocks(columns);
    const int64_t parts = std::min(blocks, divide_up(threads, strips));
    parallel_tasks(strips * parts, [&](int64_t task) {
      const int64_t row = rows.begin + task / parts * step;
      const int64_t part = task % parts;
      const auto edge = [&](int64_t i) {
        return i == parts ? columns.end
                          : columns.begin + blocks * i / parts * kPackedColumns;
      };
      f(Span{row, std::min(rows.end, row + step)},
        Span{edge(part), edge(part + 1)});
    });
  }

  ConstMatrix strip_of_x(Span rows, Span depth) const {
    thread_local Scratch scratch;
    if (args_.type == DType::bf16 && !args_.x_by_depth) {
      const auto x = at(product_.x, rows.begin, depth.begin);
      if (x.stride == depth.size() && is_aligned(x)) {
        return x;
      }
      auto* to = scratch.get<BFloat16>(rows.size() * depth.size());
      simd::convert(
          {rows.size(), depth.size(), x, {to, DType::bf16, depth.size()}});
      return {to, DType::bf16, depth.size()};
    }
    if (args_.type == DType::bf16) {
      const int64_t apart = round_up(depth.size(), kPackedDepth);
      auto* to = scratch.get<BFloat16>(rows.size() * apart);
      if (apart != depth.size()) {
        std::memset(to, 0, size_t(rows.size() * apart) * sizeof(BFloat16));
      }
      simd::transpose(
          {.rows = depth.size(),
           .columns = rows.size(),
           .x = at(product_.x, depth.begin, rows.begin),
           .out = to,
           .out_stride = apart});
      return {to, DType::bf16, apart};
    }
    if (args_.x_by_depth) {
      float* to = scratch.get<float>(rows.size() * depth.size());
      transpose_to_float(
          depth.size(),
          rows.size(),
          at(product_.x, depth.begin, rows.begin),
          to,
          depth.size());
      return {to, DType::f32, depth.size()};
    }
    const auto x = at(product_.x, rows.begin, depth.begin);
    if (x.type == DType::f32 && x.stride == depth.size()) {
      return x;
    }
    const Matrix to{
        scratch.get<float>(rows.size() * depth.size()),
        DType::f32,
        depth.size()};
    simd::convert({rows.size(), depth.size(), x, to});
    return as_const(to);
  }

  void run_strip(
      Span rows,
      Span columns,
      Span depth,
      const PackedPanel& panel,
      const Sums& sums) const {
    if (args_.upper) {
      if (columns.end <= rows.begin) {
        return;
      }
      const int64_t below = (rows.begin - columns.begin) / kPackedColumns;
      columns.begin += kPackedColumns *
          std::clamp<int64_t>(below, 0, whole_blocks(columns) - 1);
    }
    const auto x = strip_of_x(rows, depth);
    const int64_t chunks = sums.take(columns)
        ? 1
        : divide_up(whole_blocks(columns), kChunkColumns / kPackedColumns);
    for (int64_t i = 0; i < chunks; ++i) {
      const auto begin = columns.begin + i * kChunkColumns;
      const auto end = i + 1 == chunks ? columns.end : begin + kChunkColumns;
      run_chunk(rows, {begin, end}, depth, x, panel, sums);
    }
  }

  void run_chunk(
      Span rows,
      Span columns,
      Span depth,
      const ConstMatrix& x,
      const PackedPanel& panel,
      const Sums& sums) const {
    thread_local Scratch scratch;
    const bool first = depth.begin == 0;
    const bool last = depth.end == product_.k;
    const bool direct = sums.take(columns);
    const auto copy = [&](const ConstMatrix& from, const Matrix& to) {
      simd::convert({rows.size(), columns.size(), from, to});
    };
    const Matrix to = direct
        ? sums.at(rows.begin, columns.begin)
        : Matrix{
              scratch.get<float>(rows.size() * columns.size()),
              DType::f32,
              columns.size()};
    MatmulArgs chunk{
        .m = rows.size(),
        .n = columns.size(),
        .k = x.stride,
        .x = x,
        .weight = panel.from(columns.begin),
        .out = to};
    if (!first) {
      chunk.residual = as_const(sums.at(rows.begin, columns.begin));
    } else {
      chunk.residual = at(product_.residual, rows.begin, columns.begin);
      if (product_.bias.data) {
        chunk.bias = product_.bias;
        chunk.bias.data =
            advance(chunk.bias.data, chunk.bias.type, columns.begin);
      }
    }
    packed_product(chunk);
    if (last && (!direct || sums.values.data != product_.out.data)) {
      const auto out = from_row(product_.out, rows.begin);
      copy(as_const(to), from_column(out, columns.begin));
    } else if (!direct) {
      copy(as_const(to), sums.at(rows.begin, columns.begin));
    }
  }

  const StripArgs& args_;
  const MatmulArgs& product_;
};

bool works_here(DType type) {
  static const bool floats =
      packed_product_works(kPackedColumns, kPackedColumns, DType::f32);
  static const bool pairs =
      packed_product_works(kPackedColumns, kPackedColumns, DType::bf16);
  return type == DType::bf16 ? pairs : floats;
}

}  // namespace

bool strips_pay(const MatmulArgs& args, DType type) {
  return args.m >= kFewestRows && args.n >= kFewestStripColumns &&
      args.k >= kFewestDepth && !in_task() && works_here(type);
}

void strip_product(const StripArgs& args) {
  Strips(args).run();
}

}  // namespace pennyweight::kernels::onednn

#endif
