// The joint refit of a row's scales and biases: with codes held, a row is
//   Q = Z x,  x = (b_0, s_0, b_1, s_1, ...),
// Z's columns being a group's ones and codes, and |T - Z x|_H is linear least
// squares. From the present x, with G = H (T - Z x),
//   M d = r,  M = Z^T H Z,  r = Z^T G,
// d by M = L L^T; going back from the last unknown, each x_k + d_k is rounded
// to the output type at once, so that those after it make up for it. A row
// takes d if 2 d^T r - d^T M d > 0, by which its loss then falls.
// Groups beyond kWindow are solved for in windows, one after the other.

#include <algorithm>
#include <cmath>

#include "method/gptq/tile.h"

namespace pennyweight::gptq {

namespace {

constexpr int64_t kWindow = 32;  // groups
constexpr int64_t kChunk = 8;    // rows solved side by side, in float64

/// The normal equations of a window for kChunk rows: M [unknowns, unknowns]
/// (lower triangle) and r, then d.
class Normal {
 public:
  explicit Normal(int64_t unknowns)
      : n_(unknowns),
        m_(size_t(unknowns * unknowns * kChunk)),
        l_(m_.size()),
        r_(size_t(unknowns * kChunk)),
        d_(r_.size()) {}

  double* m(int64_t i, int64_t j) {
    return m_.data() + (i * n_ + j) * kChunk;
  }
  double* r(int64_t i) {
    return r_.data() + i * kChunk;
  }
  double* d(int64_t i) {
    return d_.data() + i * kChunk;
  }

  /// L, and d = L^-1 r. An unknown that the others determine (a group whose
  /// codes are all the same) is left alone.
  void factor() {
    l_ = m_;
    for (int64_t k = 0; k < n_; ++k) {
      double* pivot = l(k, k);
      for (int64_t c = 0; c < kChunk; ++c) {
        const double least = 1e-7 * m(k, k)[c];
        pivot[c] = pivot[c] > least ? 1.0 / std::sqrt(pivot[c]) : 0.0;
      }
      for (int64_t i = k + 1; i < n_; ++i) {
        for (int64_t c = 0; c < kChunk; ++c) {
          l(i, k)[c] *= pivot[c];
        }
      }
      for (int64_t i = k + 1; i < n_; ++i) {
        const double* a = l(i, k);
        for (int64_t j = k + 1; j <= i; ++j) {
          const double* b = l(j, k);
          double* out = l(i, j);
          for (int64_t c = 0; c < kChunk; ++c) {
            out[c] -= a[c] * b[c];
          }
        }
      }
    }
    d_ = r_;
    for (int64_t k = 0; k < n_; ++k) {
      for (int64_t c = 0; c < kChunk; ++c) {
        d(k)[c] *= l(k, k)[c];
      }
      for (int64_t i = k + 1; i < n_; ++i) {
        for (int64_t c = 0; c < kChunk; ++c) {
          d(i)[c] -= l(i, k)[c] * d(k)[c];
        }
      }
    }
  }

  /// The unknown k of d in full, given those after it; call from the last.
  void finish(int64_t k, double* out) const {
    std::copy_n(d_.data() + k * kChunk, kChunk, out);
    for (int64_t i = k + 1; i < n_; ++i) {
      const double* a = l_.data() + (i * n_ + k) * kChunk;
      const double* b = d_.data() + i * kChunk;
      for (int64_t c = 0; c < kChunk; ++c) {
        out[c] -= a[c] * b[c];
      }
    }
    const double* inverse = l_.data() + (k * n_ + k) * kChunk;
    for (int64_t c = 0; c < kChunk; ++c) {
      out[c] *= inverse[c];
    }
  }

  /// 2 d^T r - d^T M d.
  void gain(double* out) {
    std::fill_n(out, kChunk, 0.0);
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t c = 0; c < kChunk; ++c) {
        double row = 0.5 * m(i, i)[c] * d(i)[c];
        for (int64_t j = 0; j < i; ++j) {
          row += m(i, j)[c] * d(j)[c];
        }
        out[c] += 2 * d(i)[c] * (r(i)[c] - row);
      }
    }
  }

 private:
  double* l(int64_t i, int64_t j) {
    return l_.data() + (i * n_ + j) * kChunk;
  }

  int64_t n_;
  std::vector<double> m_, l_, r_, d_;
};

/// A window's sums for all lanes: index (f, g) of two groups.
struct WindowSums {
  explicit WindowSums(int64_t groups)
      : count(groups),
        codes(size_t(groups * groups * kLanes)),
        cross(codes.size()),
        ones(size_t(groups * groups)),
        moment(size_t(groups * kLanes)),
        sum(moment.size()) {}

  int64_t count;
  std::vector<float> codes;        // q_f^T H q_g, f >= g
  std::vector<float> cross;        // 1_f^T H q_g
  std::vector<float> ones;         // 1_f^T H 1_g
  std::vector<float> moment, sum;  // q_g^T G, 1_g^T G
};

void fill(Normal& normal, const WindowSums& sums, int64_t first_lane) {
  for (int64_t f = 0; f < sums.count; ++f) {
    for (int64_t g = 0; g <= f; ++g) {
      const int64_t fg = f * sums.count + g;
      const int64_t gf = g * sums.count + f;
      const float* codes = sums.codes.data() + fg * kLanes + first_lane;
      const float* cross = sums.cross.data() + fg * kLanes + first_lane;
      const float* other = sums.cross.data() + gf * kLanes + first_lane;
      for (int64_t c = 0; c < kChunk; ++c) {
        normal.m(2 * f, 2 * g)[c] = sums.ones[size_t(fg)];
        normal.m(2 * f, 2 * g + 1)[c] = cross[c];
        normal.m(2 * f + 1, 2 * g)[c] = other[c];
        normal.m(2 * f + 1, 2 * g + 1)[c] = codes[c];
      }
    }
    const int64_t at = f * kLanes + first_lane;
    for (int64_t c = 0; c < kChunk; ++c) {
      normal.r(2 * f)[c] = sums.sum[size_t(at + c)];
      normal.r(2 * f + 1)[c] = sums.moment[size_t(at + c)];
    }
  }
}

}  // namespace

/// The sums of groups first .. last - 1.
static void gather(
    const TileSetup& setup,
    int64_t first,
    int64_t last,
    const float* codes,
    const float* gradient,
    float* product,
    WindowSums& sums) {
  const GptqHessian::Factor& factor = *setup.factor;
  const int64_t n = factor.columns;
  const int64_t size = setup.group_size;
  const int64_t count = last - first;
  std::vector<float> cross(size_t(count * kLanes));
  for (int64_t g = 0; g < count; ++g) {
    const int64_t column = (first + g) * size;
    const float* q = codes + column * kLanes;
    const int64_t rest = last * size - column;
    std::fill_n(product, rest * kLanes, 0.0f);
    add_product(
        factor.damped.data() + column * n + column, n, rest, size, q, product);
    std::fill(cross.begin(), cross.end(), 0.0f);
    add_product(
        setup.group_sums.data() + first * n + column,
        n,
        count,
        size,
        q,
        cross.data());
    for (int64_t f = 0; f < count; ++f) {
      const int64_t fg = f * count + g;
      std::copy_n(
          cross.data() + f * kLanes, kLanes, sums.cross.data() + fg * kLanes);
      if (f >= g) {
        lane_dots(
            product + (f - g) * size * kLanes,
            codes + (first + f) * size * kLanes,
            size,
            sums.codes.data() + fg * kLanes);
      }
      const float* row = setup.group_sums.data() + (first + f) * n + column;
      double ones = 0;
      for (int64_t i = 0; i < size; ++i) {
        ones += row[i];
      }
      sums.ones[size_t(fg)] = float(ones);
    }
    const float* here = gradient + column * kLanes;
    lane_dots(here, q, size, sums.moment.data() + g * kLanes);
    lane_sums(here, size, sums.sum.data() + g * kLanes);
  }
}

/// Solves kChunk rows and writes the new grids of those that gain; `steps`
/// gets old less new of (bias, scale), zeros for the others. What they gain.
static double solve_chunk(
    Normal& normal,
    int64_t groups,
    int64_t lane,
    kernels::DType dtype,
    float* scales,
    float* biases,
    float* steps) {
  normal.factor();
  std::vector<float> wanted(size_t(2 * groups * kChunk));
  for (int64_t k = 2 * groups - 1; k >= 0; --k) {
    const float* from = (k % 2 ? scales : biases) + k / 2 * kLanes + lane;
    float* to = wanted.data() + k * kChunk;
    double step[kChunk];
    normal.finish(k, step);
    for (int64_t c = 0; c < kChunk; ++c) {
      to[c] = float(double(from[c]) + step[c]);
    }
    round_to(dtype, to, kChunk);
    for (int64_t c = 0; c < kChunk; ++c) {
      normal.d(k)[c] = double(to[c]) - double(from[c]);
    }
  }
  double gain[kChunk];
  normal.gain(gain);
  double gained = 0;
  for (int64_t c = 0; c < kChunk; ++c) {
    const bool take = gain[c] > 0 && std::isfinite(gain[c]);
    gained += take ? gain[c] : 0;
    for (int64_t k = 0; k < 2 * groups; ++k) {
      float* at = (k % 2 ? scales : biases) + k / 2 * kLanes + lane + c;
      const float to = wanted[size_t(k * kChunk + c)];
      steps[k * kLanes + lane + c] = take ? *at - to : 0.0f;
      *at = take ? to : *at;
    }
  }
  return gained;
}

double RowTile::refit_window(int64_t first, int64_t last, bool keep_gradient) {
  const int64_t count = last - first;
  const int64_t size = setup_.group_size;
  const int64_t begin = first * size;
  WindowSums sums(count);
  gather(
      setup_, first, last, codes_.data(), gradient_.data(), work_.data(), sums);
  Normal normal(2 * count);
  std::vector<float> steps(size_t(2 * count * kLanes));
  double gained = 0;
  for (int64_t lane = 0; lane < kLanes; lane += kChunk) {
    fill(normal, sums, lane);
    gained += solve_chunk(
        normal,
        count,
        lane,
        setup_.format.dtype,
        scales_.data() + first * kLanes,
        biases_.data() + first * kLanes,
        steps.data());
  }
  if (gained == 0) {
    return 0;
  }
  for (int64_t i = 0; i < count * size; ++i) {
    const float* bias = steps.data() + 2 * (i / size) * kLanes;
    const float* scale = bias + kLanes;
    const int64_t at = (begin + i) * kLanes;
    for (int64_t l = 0; l < kLanes; ++l) {
      const float move = scale[l] * codes_[size_t(at + l)] + bias[l];
      more_[size_t(i * kLanes + l)] = move;
      error_[size_t(at + l)] += move;
    }
  }
  // Else only what later windows read of it.
  const int64_t from = keep_gradient ? 0 : last * size;
  if (from < columns_) {
    add_product(
        factor_.damped.data() + from * columns_ + begin,
        columns_,
        columns_ - from,
        count * size,
        more_.data(),
        gradient_.data() + from * kLanes);
  }
  return gained;
}

double RowTile::refit(bool keep_gradient) {
  double gained = 0;
  // Windows of equal size rather than a full one and a rest.
  const int64_t windows = (groups_ + kWindow - 1) / kWindow;
  for (int64_t w = 0; w < windows; ++w) {
    gained += refit_window(
        groups_ * w / windows, groups_ * (w + 1) / windows, keep_gradient);
  }
  return gained;
}

}  // namespace pennyweight::gptq
