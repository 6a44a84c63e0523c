#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/access.h"
#include "kernels/reference/gated.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

void rms_norm(const RmsNormArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    double squares = 0;
    for (int64_t j = 0; j < args.columns; ++j) {
      squares += double(load_at(args.x, i, j)) * load_at(args.x, i, j);
    }
    const double factor =
        1.0 / std::sqrt(squares / double(args.columns) + double(args.eps));
    for (int64_t j = 0; j < args.columns; ++j) {
      const int64_t at = i % args.weights * args.columns + j;
      const double weight = load_at(args.weight.data, args.weight.type, at);
      const double value = double(load_at(args.x, i, j)) * factor * weight;
      store_at(args.out, i, j, float(value));
    }
  }
}

namespace {

void rope_head(
    const RopeArgs& args,
    int64_t position,
    const void* x,
    void* out) {
  const int64_t half = args.dims / 2;
  for (int64_t i = args.dims; i < args.head_dim; ++i) {
    store_at(out, args.type, i, load_at(x, args.type, i));
  }
  for (int64_t i = 0; i < half; ++i) {
    const int64_t first = args.traditional ? 2 * i : i;
    const int64_t second = args.traditional ? 2 * i + 1 : i + half;
    // The angle is a float32 product, as in MLX: at position 10^5 another
    // rounding of it is a visible difference.
    const double angle = float(position) * args.frequencies[i];
    const double a = double(load_at(x, args.type, first)) * args.input_scale;
    const double b = double(load_at(x, args.type, second)) * args.input_scale;
    const double c = std::cos(angle), s = std::sin(angle);
    store_at(out, args.type, first, float(a * c - b * s));
    store_at(out, args.type, second, float(a * s + b * c));
  }
}

}  // namespace

void rope(const RopeArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t t = 0; t < args.length; ++t) {
      for (int64_t h = 0; h < args.heads; ++h) {
        const int64_t from = b * args.x_batch_stride + t * args.x_row_stride +
            h * args.x_head_stride;
        const int64_t to =
            ((b * args.length + t) * args.heads + h) * args.head_dim;
        rope_head(
            args,
            args.offset + t,
            advance(args.x, args.type, from),
            advance(args.out, args.type, to));
      }
    }
  }
}

void subtract(const SubtractArgs& args) {
  for (int64_t i = 0; i < args.count; ++i) {
    store_at(args.out, args.out_type, i, args.a[i] - args.b[i]);
  }
}

void add_magnitudes(const AddMagnitudesArgs& args) {
  for (int64_t j = 0; j < args.columns; ++j) {
    double sum = args.out[j];
    for (int64_t i = 0; i < args.rows; ++i) {
      sum += std::abs(double(load_at(args.x, i, j)));
    }
    args.out[j] = float(sum);
  }
}

void transpose(const TransposeArgs& args) {
  const size_t size = size_of(args.x.type);
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.columns; ++j) {
      const int64_t to = j * args.out_stride + i;
      std::memcpy(
          advance(args.out, args.x.type, to),
          advance(args.x.data, args.x.type, i * args.x.stride + j),
          size);
    }
  }
}

void gated_activation(const GatedActivationArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.columns; ++j) {
      const Gated gated(
          args.kind, load_at(args.gate, i, j), load_at(args.up, i, j));
      store_at(args.out, i, j, float(gated.value()));
    }
  }
}

namespace {

double row_max(const ConstMatrix& x, int64_t row, int64_t columns) {
  double max = load_at(x, row, 0);
  for (int64_t j = 1; j < columns; ++j) {
    max = std::max(max, double(load_at(x, row, j)));
  }
  return max;
}

double row_sum(const ConstMatrix& x, int64_t row, int64_t columns, double max) {
  double sum = 0;
  for (int64_t j = 0; j < columns; ++j) {
    sum += std::exp(load_at(x, row, j) - max);
  }
  return sum;
}

}  // namespace

void softmax(const SoftmaxArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    const double max = row_max(args.x, i, args.columns);
    const double sum = row_sum(args.x, i, args.columns, max);
    for (int64_t j = 0; j < args.columns; ++j) {
      const double value = std::exp(load_at(args.x, i, j) - max) / sum;
      store_at(args.out, i, j, float(value));
    }
  }
}

void logsumexp(const LogSumExpArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    const double max = row_max(args.x, i, args.columns);
    // A row of -inf has no maximum to shift by.
    args.out[i] = std::isinf(max)
        ? float(max)
        : float(max + std::log(row_sum(args.x, i, args.columns, max)));
  }
}

}  // namespace pennyweight::kernels::reference
