#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/access.h"
#include "kernels/quant_codes.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

/// softmax(x) and log(sum(exp(x))).
struct Softmax {
  std::vector<double> p;
  double lse;

  explicit Softmax(const std::vector<double>& x) : p(x.size()) {
    const double max = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      sum += p[i] = std::exp(x[i] - max);
    }
    for (double& value : p) {
      value /= sum;
    }
    lse = max + std::log(sum);
  }
};

}  // namespace

void kl_rows(const KlRowsArgs& args) {
  const size_t n = size_t(args.columns);
  std::vector<double> s(n), r(n);
  for (int64_t row = 0; row < args.rows; ++row) {
    for (size_t j = 0; j < n; ++j) {
      s[j] = double(load_at(args.logits, row, int64_t(j))) / args.temperature;
      r[j] =
          double(load_at(args.reference, row, int64_t(j))) / args.temperature;
    }
    const Softmax p(s), q(r);
    double loss = p.lse - q.lse;
    for (size_t j = 0; j < n; ++j) {
      loss += q.p[j] * (r[j] - s[j]);
      double slope = double(args.factor) / args.temperature;
      if (args.cap > 0) {
        const double part = s[j] * args.temperature / args.cap;
        slope *= 1 - part * part;
      }
      store_at(args.dlogits, row, int64_t(j), float(slope * (p.p[j] - q.p[j])));
    }
    args.loss[row] = float(loss);
  }
}

void group_gradient(const GroupGradientArgs& args) {
  const int64_t groups = args.weight.columns / args.weight.group;
  const int64_t row_bytes = code_bytes_per_row(args.weight);
  for (int64_t row = 0; row < args.weight.rows; ++row) {
    const auto* codes =
        static_cast<const uint8_t*>(args.weight.codes) + row * row_bytes;
    for (int64_t g = 0; g < groups; ++g) {
      double by_scale = 0;
      double by_bias = 0;
      for (int64_t i = 0; i < args.weight.group; ++i) {
        const int64_t column = g * args.weight.group + i;
        const double dw = load_at(args.dw, row, column);
        by_scale += dw * code_at(codes, args.weight.bits, column);
        by_bias += dw;
      }
      args.dscales[row * groups + g] = float(by_scale);
      args.dbiases[row * groups + g] = float(by_bias);
    }
  }
}

void accumulate(const AccumulateArgs& args) {
  for (int64_t i = 0; i < args.count; ++i) {
    args.sum[i] += args.x[i];
  }
}

}  // namespace pennyweight::kernels::reference
