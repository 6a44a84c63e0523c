// Not written in Highway: the largest values are found by comparing and
// counting, and the divergence is over a thousand columns a row at most.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/access.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"

namespace pennyweight::kernels::simd {

namespace {

/// A key in the order of the floats; both zeros have the same.
uint32_t key_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// Finds the columns of a row's largest values by a histogram of the keys'
/// leading bits: only the values of one bin have to be compared.
class RowTop {
 public:
  const std::vector<uint32_t>&
  find(const float* x, int64_t columns, int64_t count) {
    const uint32_t bin = boundary(x, columns, count);
    chosen_.clear();
    tied_.clear();
    for (int64_t j = 0; j < columns; ++j) {
      const uint32_t own = key_of(x[j]) >> kShift;
      if (own > bin) {
        chosen_.push_back(uint32_t(j));
      } else if (own == bin) {
        tied_.push_back(uint32_t(j));
      }
    }
    const auto missing = count - int64_t(chosen_.size());
    std::nth_element(
        tied_.begin(),
        tied_.begin() + missing,
        tied_.end(),
        [x](uint32_t a, uint32_t b) {
          return x[a] != x[b] ? x[a] > x[b] : a < b;
        });
    chosen_.insert(chosen_.end(), tied_.begin(), tied_.begin() + missing);
    std::sort(chosen_.begin(), chosen_.end());
    return chosen_;
  }

 private:
  static constexpr int kShift = 20;

  // The bin in which the smallest of the `count` largest values is.
  uint32_t boundary(const float* x, int64_t columns, int64_t count) {
    counts_.fill(0);
    for (int64_t j = 0; j < columns; ++j) {
      ++counts_[key_of(x[j]) >> kShift];
    }
    uint32_t bin = uint32_t(counts_.size());
    for (int64_t above = 0; above < count;) {
      above += counts_[--bin];
    }
    return bin;
  }

  std::array<int32_t, 1 << (32 - kShift)> counts_{};
  std::vector<uint32_t> chosen_, tied_;
};

/// One row of kl_top; `r` is scratch.
void kl_top_row(const KlTopArgs& args, int64_t row, std::vector<double>& r) {
  const float* values = args.values + row * args.count;
  float* gradient = args.gradient + row * args.count;
  std::vector<double> s(r.size());
  double max_s = -std::numeric_limits<double>::infinity();
  double max_r = max_s;
  for (size_t i = 0; i < r.size(); ++i) {
    s[i] = double(values[i]) / args.temperature;
    r[i] = double(load_at(args.reference, row, int64_t(i))) / args.temperature;
    max_s = std::max(max_s, s[i]);
    max_r = std::max(max_r, r[i]);
  }
  double sum_s = 0, sum_r = 0, cross = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    const double distance = r[i] - s[i];
    s[i] = double(std::exp(float(s[i] - max_s)));
    r[i] = double(std::exp(float(r[i] - max_r)));
    sum_s += s[i];
    sum_r += r[i];
    cross += r[i] * distance;
  }
  args.loss[row] = float(
      cross / sum_r + (max_s + std::log(sum_s)) - (max_r + std::log(sum_r)));
  for (size_t i = 0; i < r.size(); ++i) {
    double factor = double(args.factor) / args.temperature;
    if (args.cap > 0) {
      const double part = double(values[i] / args.cap);
      factor *= 1 - part * part;
    }
    gradient[i] = float(factor * (s[i] / sum_s - r[i] / sum_r));
  }
}

}  // namespace

void kl_top(const KlTopArgs& args) {
  parallel_ranges(args.rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> r(size_t(args.count));
    for (int64_t row = begin; row < end; ++row) {
      kl_top_row(args, row, r);
    }
  });
}

void top(const TopArgs& args) {
  parallel_ranges(args.rows, 1, [&](int64_t begin, int64_t end) {
    RowTop finder;
    for (int64_t row = begin; row < end; ++row) {
      const auto* x =
          static_cast<const float*>(args.x.data) + row * args.x.stride;
      const auto& columns = finder.find(x, args.columns, args.count);
      for (int64_t i = 0; i < args.count; ++i) {
        args.indices[row * args.count + i] = columns[size_t(i)];
        store_at(args.values, row, i, x[columns[size_t(i)]]);
      }
    }
  });
}

}  // namespace pennyweight::kernels::simd
