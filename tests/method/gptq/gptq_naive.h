#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "method/gptq/gptq.h"

/// Weights and Hessians for the tests of GPTQ, and the paper's algorithm in
/// float64.
namespace pennyweight {

using kernels::DType;
using Doubles = std::vector<double>;

inline std::vector<float>
normal_weight(int64_t rows, int64_t columns, int seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> weight(size_t(rows * columns));
  for (float& w : weight) {
    w = normal(random);
  }
  return weight;
}

/// Inputs [tokens, columns] that lie near a subspace, with channels of very
/// unequal size, as activations do.
inline std::vector<float>
correlated_inputs(int64_t tokens, int64_t columns, int seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal;
  const int64_t rank = columns / 8;
  std::vector<float> basis(size_t(rank * columns));
  for (float& b : basis) {
    b = normal(random);
  }
  std::vector<float> gain(static_cast<size_t>(columns));
  for (float& g : gain) {
    g = std::exp(0.5f * normal(random));
  }
  std::vector<float> x(size_t(tokens * columns));
  std::vector<float> z(static_cast<size_t>(rank));
  for (int64_t t = 0; t < tokens; ++t) {
    for (float& value : z) {
      value = normal(random);
    }
    for (int64_t j = 0; j < columns; ++j) {
      float sum = 0.05f * normal(random);
      for (int64_t r = 0; r < rank; ++r) {
        sum += z[size_t(r)] * basis[size_t(r * columns + j)] /
            std::sqrt(float(rank));
      }
      x[size_t(t * columns + j)] = gain[size_t(j)] * sum;
    }
  }
  return x;
}

/// x^T y over the tokens.
inline std::vector<float> product_over_tokens(
    const std::vector<float>& x,
    const std::vector<float>& y,
    int64_t tokens,
    int64_t columns) {
  Doubles sum(size_t(columns * columns));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < columns; ++i) {
      const double a = x[size_t(t * columns + i)];
      for (int64_t j = 0; j < columns; ++j) {
        sum[size_t(i * columns + j)] += a * y[size_t(t * columns + j)];
      }
    }
  }
  return {sum.begin(), sum.end()};
}

inline const std::vector<float>& correlated_hessian(int64_t columns, int seed) {
  static std::map<std::pair<int64_t, int>, std::vector<float>> made;
  auto& hessian = made[{columns, seed}];
  if (hessian.empty()) {
    const int64_t tokens = 2 * columns;
    const auto x = correlated_inputs(tokens, columns, seed);
    hessian = product_over_tokens(x, x, tokens, columns);
  }
  return hessian;
}

// --- GPTQ from the paper, in float64 ---------------------------------------

/// Upper U with U^T U = (H + lambda I)^-1, H = [n, n] in file order.
inline Doubles cholesky_of_inverse(Doubles h, int64_t n) {
  const auto at = [n](int64_t i, int64_t j) { return size_t(i * n + j); };
  // Inverse by Gauss-Jordan elimination.
  Doubles inverse(size_t(n * n), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    inverse[at(i, i)] = 1;
  }
  for (int64_t p = 0; p < n; ++p) {
    const double pivot = h[at(p, p)];
    for (int64_t j = 0; j < n; ++j) {
      h[at(p, j)] /= pivot;
      inverse[at(p, j)] /= pivot;
    }
    for (int64_t i = 0; i < n; ++i) {
      const double f = h[at(i, p)];
      if (i == p || f == 0) {
        continue;
      }
      for (int64_t j = 0; j < n; ++j) {
        h[at(i, j)] -= f * h[at(p, j)];
        inverse[at(i, j)] -= f * inverse[at(p, j)];
      }
    }
  }
  // Cholesky, upper: row by row.
  Doubles u(size_t(n * n), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      double sum = inverse[at(i, j)];
      for (int64_t k = 0; k < i; ++k) {
        sum -= u[at(k, i)] * u[at(k, j)];
      }
      u[at(i, j)] = i == j ? std::sqrt(sum) : sum / u[at(i, i)];
    }
  }
  return u;
}

struct Quantized {
  std::vector<int> codes;
  Doubles values;
};

struct Grid {
  double scale, bias;
};

inline Grid naive_minmax(const double* w, int64_t size, int top) {
  const auto [low, high] = std::minmax_element(w, w + size);
  const bool low_is_edge = std::fabs(*low) > std::fabs(*high);
  double scale = std::max((*high - *low) / top, 1e-7);
  scale = low_is_edge ? scale : -scale;
  const double edge = low_is_edge ? *low : *high;
  const double codes = std::nearbyint(edge / scale);
  return codes == 0 ? Grid{scale, 0} : Grid{edge / codes, edge};
}

/// Algorithm 1 of the paper without its blocking: columns in file order, a
/// group's grid taken from its weights when it is reached.
inline Quantized naive_gptq(
    const std::vector<float>& weight,
    int64_t rows,
    const std::vector<float>& hessian,
    int64_t n,
    int bits,
    int64_t group,
    double damp) {
  Doubles h(hessian.begin(), hessian.end());
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    mean += h[size_t(i * n + i)] / double(n);
  }
  for (int64_t i = 0; i < n; ++i) {
    h[size_t(i * n + i)] += damp * mean;
  }
  const Doubles u = cholesky_of_inverse(h, n);
  const int top = (1 << bits) - 1;
  Quantized out;
  out.codes.resize(size_t(rows * n));
  out.values.resize(out.codes.size());
  for (int64_t r = 0; r < rows; ++r) {
    Doubles w(weight.begin() + r * n, weight.begin() + (r + 1) * n);
    Grid grid{};
    for (int64_t i = 0; i < n; ++i) {
      if (i % group == 0) {
        grid = naive_minmax(w.data() + i, group, top);
      }
      const double code = std::clamp(
          std::nearbyint((w[size_t(i)] - grid.bias) / grid.scale),
          0.0,
          double(top));
      const double value = grid.scale * code + grid.bias;
      const double error = (w[size_t(i)] - value) / u[size_t(i * n + i)];
      for (int64_t j = i; j < n; ++j) {
        w[size_t(j)] -= error * u[size_t(i * n + j)];
      }
      out.codes[size_t(r * n + i)] = int(code);
      out.values[size_t(r * n + i)] = value;
    }
  }
  return out;
}

/// tr((W - Q) H (W - Q)^T), of one row or of all.
inline double naive_loss(
    const std::vector<float>& weight,
    const Doubles& values,
    const std::vector<float>& hessian,
    int64_t first,
    int64_t last,
    int64_t n,
    double lambda = 0) {
  double total = 0;
  for (int64_t r = first; r < last; ++r) {
    Doubles e(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      e[size_t(i)] =
          double(weight[size_t(r * n + i)]) - values[size_t(r * n + i)];
    }
    for (int64_t i = 0; i < n; ++i) {
      double row = lambda * e[size_t(i)];
      for (int64_t j = 0; j < n; ++j) {
        row += hessian[size_t(i * n + j)] * e[size_t(j)];
      }
      total += row * e[size_t(i)];
    }
  }
  return total;
}

inline Doubles values_of(const GptqResult& result, int64_t n, int64_t group) {
  Doubles values(result.codes.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t row = int64_t(i) / n;
    const int64_t g = row * (n / group) + int64_t(i) % n / group;
    values[i] = double(result.scales[size_t(g)]) * result.codes[i] +
        double(result.biases[size_t(g)]);
  }
  return values;
}

inline Doubles
nearest(const std::vector<float>& weight, int bits, int64_t group) {
  const int top = (1 << bits) - 1;
  const Doubles w(weight.begin(), weight.end());
  Doubles values(w.size());
  for (size_t at = 0; at < w.size(); at += size_t(group)) {
    const Grid grid = naive_minmax(w.data() + at, group, top);
    for (size_t i = at; i < at + size_t(group); ++i) {
      const double code = std::clamp(
          std::nearbyint((w[i] - grid.bias) / grid.scale), 0.0, double(top));
      values[i] = grid.scale * code + grid.bias;
    }
  }
  return values;
}

inline QuantSpec affine(int bits, int group) {
  return {.mode = "affine", .bits = bits, .group_size = group};
}

inline GptqResult quantize(
    const std::vector<float>& weight,
    int64_t rows,
    const std::vector<float>& hessian,
    const QuantSpec& spec,
    const GptqOptions& options,
    DType dtype = DType::bf16) {
  const auto columns = int64_t(weight.size()) / rows;
  const GptqHessian factored(hessian, columns, options);
  return gptq_quantize(weight.data(), rows, factored, spec, dtype, options);
}

}  // namespace pennyweight
