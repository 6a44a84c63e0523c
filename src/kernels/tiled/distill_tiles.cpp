#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/access.h"
#include "kernels/distill.h"
#include "kernels/mixed_bits.h"
#include "kernels/tiled/head_tile.h"

namespace pennyweight::kernels {

namespace {

struct DistillBuffers {
  Scratch logits, reference, sums;
};

/// Calls f(row, column, rows, columns) for tiles of all rows and columns, on
/// all threads and in any order.
template <class F>
void each_tile(int64_t rows, int64_t columns, F&& f) {
  const int64_t down = (rows + kHeadTileRows - 1) / kHeadTileRows;
  const int64_t across = (columns + kHeadTileColumns - 1) / kHeadTileColumns;
  parallel_tasks(down * across, [&](int64_t tile) {
    const int64_t row = tile % down * kHeadTileRows;
    const int64_t column = tile / down * kHeadTileColumns;
    f(row,
      column,
      std::min(kHeadTileRows, rows - row),
      std::min(kHeadTileColumns, columns - column));
  });
}

/// The signed roots s sqrt(p) of one row of a tile.
class Draw {
 public:
  Draw(const FisherTileArgs& args, int64_t row, int64_t column)
      : key_(mixed(args.seed ^ mixed(uint64_t(args.first_row + row)))),
        first_(args.first + column) {}

  /// Calls f(i, count, roots) for up to 64 columns at a time, from the i-th on.
  template <class F>
  void each(const float* p, int64_t columns, F&& f) const {
    std::array<float, kBits> roots;
    for (int64_t at = 0; at < columns; at += kBits) {
      const uint64_t bits = mixed(key_ + uint64_t(first_ + at));
      const int64_t count = std::min(kBits, columns - at);
      for (int64_t i = 0; i < count; ++i) {
        const float root = std::sqrt(p[at + i]);
        roots[size_t(i)] = (bits >> i) & 1 ? root : -root;
      }
      f(at, count, roots.data());
    }
  }

 private:
  static constexpr int64_t kBits = 64;
  uint64_t key_;
  int64_t first_;
};

/// The softmax of each row over the tile's own columns, and
/// log(sum(exp(logits))).
struct TileSoftmax {
  ConstMatrix logits;
  float* p;
  float* log_sums;

  TileSoftmax(
      const HeadSide& head,
      int64_t row,
      int64_t column,
      int64_t rows,
      int64_t columns,
      DistillBuffers& buffers)
      : logits(head_tile(head, row, column, rows, columns, buffers.logits)),
        p(buffers.reference.get<float>(rows * columns)),
        log_sums(buffers.sums.get<float>(rows)) {
    kernels::softmax(
        {.rows = rows,
         .columns = columns,
         .x = logits,
         .out = {p, DType::f32, columns}});
    kernels::logsumexp(
        {.rows = rows, .columns = columns, .x = logits, .out = log_sums});
  }
};

void add_to_state(double log_sum, double dot, float* state) {
  const double before = double(state[kFisherLogSum]);
  const double most = std::max(before, log_sum);
  const double after =
      most + std::log(std::exp(before - most) + std::exp(log_sum - most));
  state[kFisherDot] = float(
      double(state[kFisherDot]) * std::exp((before - after) / 2) +
      dot * std::exp((log_sum - after) / 2));
  state[kFisherLogSum] = float(after);
}

}  // namespace

void kl_tile(const KlTileArgs& args) {
  each_tile(
      args.rows, args.columns, [&](auto row, auto column, auto m, auto n) {
        thread_local DistillBuffers buffers;
        kernels::kl_gradient(
            {.rows = m,
             .columns = n,
             .temperature = args.temperature,
             .cap = args.head.cap,
             .factor = args.factor,
             .logits = head_tile(args.head, row, column, m, n, buffers.logits),
             .reference = head_tile(
                 args.reference, row, column, m, n, buffers.reference),
             .state = args.state + row * args.state_stride,
             .state_stride = args.state_stride,
             .gradient = from_column(from_row(args.gradient, row), column)});
      });
}

void fisher_update(const FisherTileArgs& args) {
  each_row_block(args.rows, [&](int64_t row, int64_t rows) {
    thread_local DistillBuffers buffers;
    each_column_tile(args.columns, [&](int64_t j, int64_t n) {
      const TileSoftmax tile(args.head, row, j, rows, n, buffers);
      for (int64_t i = 0; i < rows; ++i) {
        double dot = 0;
        const Draw draw(args, row + i, j);
        draw.each(
            tile.p + i * n, n, [&](int64_t, int64_t count, const float* roots) {
              float sum = 0;
              for (int64_t k = 0; k < count; ++k) {
                sum += roots[k];
              }
              dot += double(sum);
            });
        add_to_state(
            double(tile.log_sums[i]),
            dot,
            args.state + (row + i) * kFisherColumns);
      }
    });
  });
}

// v = s q - p (q . s), q = sqrt(p).
void fisher_gradient(const FisherTileArgs& args) {
  each_tile(
      args.rows, args.columns, [&](auto row, auto column, auto m, auto n) {
        thread_local DistillBuffers buffers;
        const TileSoftmax tile(args.head, row, column, m, n, buffers);
        const auto* logits = static_cast<const float*>(tile.logits.data);
        const float cap = args.head.cap;
        for (int64_t i = 0; i < m; ++i) {
          const float* state = args.state + (row + i) * kFisherColumns;
          const double share =
              std::exp(double(tile.log_sums[i]) - double(state[kFisherLogSum]));
          const auto root_share = float(std::sqrt(share));
          const auto dot = float(share * double(state[kFisherDot]));
          float* p = tile.p + i * n;
          const Draw draw(args, row + i, column);
          draw.each(p, n, [&](int64_t at, int64_t count, const float* roots) {
            for (int64_t k = 0; k < count; ++k) {
              p[at + k] = roots[k] * root_share - p[at + k] * dot;
            }
          });
          for (int64_t j = 0; cap > 0 && j < n; ++j) {
            const float tanh = logits[i * n + j] / cap;
            p[j] *= 1 - tanh * tanh;
          }
          for (int64_t j = 0; j < n; ++j) {
            store_at(args.gradient, row + i, column + j, p[j]);
          }
        }
      });
}

void pick_top(const PickTopArgs& args) {
  const auto& places = args.places;
  each_row_block(places.rows, [&](int64_t row, int64_t rows) {
    thread_local DistillBuffers buffers;
    const auto logits =
        head_tile(args.head, row, 0, rows, places.columns, buffers.logits);
    for (int64_t i = row * places.count; i < (row + rows) * places.count; ++i) {
      const int64_t column = int64_t(places.indices[i]) - places.first;
      if (column >= 0 && column < places.columns) {
        args.values[i] = load_at(logits, i / places.count - row, column);
      }
    }
  });
}

void spread_top(const SpreadTopArgs& args) {
  const auto& places = args.places;
  parallel_ranges(places.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memset(
          advance(args.tile.data, args.tile.type, row * args.tile.stride),
          0,
          size_t(places.columns) * size_of(args.tile.type));
      for (int64_t i = row * places.count; i < (row + 1) * places.count; ++i) {
        const int64_t column = int64_t(places.indices[i]) - places.first;
        if (column >= 0 && column < places.columns) {
          store_at(args.tile, row, column, args.values[i]);
        }
      }
    }
  });
}

void top_head(const TopHeadArgs& args) {
  // Memory for the logits of the rows that are multiplied together.
  constexpr int64_t kBytes = 64 << 20;
  constexpr int64_t kStep = 32;
  const int64_t fitting = kBytes / (4 * args.columns) / kStep * kStep;
  const int64_t most = std::clamp<int64_t>(fitting, kStep, 512);
  thread_local Scratch scratch;
  for (int64_t row = 0; row < args.rows; row += most) {
    const int64_t rows = std::min(most, args.rows - row);
    kernels::top(
        {.rows = rows,
         .columns = args.columns,
         .count = args.count,
         .x = head_tile(args.head, row, 0, rows, args.columns, scratch),
         .values = from_row(args.values, row),
         .indices = args.indices + row * args.count});
  }
}

}  // namespace pennyweight::kernels
