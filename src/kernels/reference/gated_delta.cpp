#include <cmath>
#include <vector>

#include "kernels/access.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

double dot(const double* a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

std::vector<double> row_at(
    const HeadsView& view,
    DType type,
    int64_t batch,
    int64_t row,
    int64_t head,
    int64_t dim) {
  const int64_t first = batch * view.batch_stride + row * view.row_stride +
      head * view.head_stride;
  std::vector<double> values(static_cast<size_t>(dim));
  for (int64_t i = 0; i < dim; ++i) {
    values[size_t(i)] = load_at(view.data, type, first + i);
  }
  return values;
}

void run_head(const GatedDeltaArgs& args, int64_t b, int64_t h) {
  const int64_t key_head = h / (args.heads / args.key_heads);
  std::vector<double> state(size_t(args.value_dim * args.key_dim), 0.0);
  for (int64_t t = 0; t < args.length; ++t) {
    const auto q = row_at(args.q, args.type, b, t, key_head, args.key_dim);
    const auto k = row_at(args.k, args.type, b, t, key_head, args.key_dim);
    const auto v = row_at(args.v, args.value_type, b, t, h, args.value_dim);
    const int64_t at = (b * args.length + t) * args.heads + h;
    for (int64_t r = 0; r < args.value_dim; ++r) {
      double* row = state.data() + r * args.key_dim;
      for (int64_t i = 0; i < args.key_dim; ++i) {
        row[i] *= args.g[at];
      }
      const double delta = args.beta[at] * (v[size_t(r)] - dot(row, k));
      for (int64_t i = 0; i < args.key_dim; ++i) {
        row[i] += delta * k[size_t(i)];
      }
      store_at(
          args.out,
          args.value_type,
          at * args.value_dim + r,
          float(dot(row, q)));
    }
  }
}

}  // namespace

void gated_delta(const GatedDeltaArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t h = 0; h < args.heads; ++h) {
      run_head(args, b, h);
    }
  }
}

namespace {

double conv_at(const CausalConvArgs& args, int64_t b, int64_t t, int64_t c) {
  double sum = 0;
  for (int64_t j = 0; j < args.width; ++j) {
    const int64_t from = t - (args.width - 1) + j;
    if (from < 0) {
      continue;
    }
    const int64_t index = b * args.x_batch_stride + from * args.x_row_stride;
    sum += double(load_at(args.x, args.type, index + c)) *
        load_at(args.weight.data, args.weight.type, c * args.width + j);
  }
  return sum;
}

}  // namespace

void causal_conv(const CausalConvArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t t = 0; t < args.length; ++t) {
      for (int64_t c = 0; c < args.channels; ++c) {
        const double sum = conv_at(args, b, t, c);
        const double value = args.silu ? sum / (1.0 + std::exp(-sum)) : sum;
        const int64_t to = (b * args.length + t) * args.channels + c;
        store_at(args.out, args.type, to, float(value));
      }
    }
  }
}

}  // namespace pennyweight::kernels::reference
