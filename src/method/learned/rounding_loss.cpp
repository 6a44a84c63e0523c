#include "method/learned/rounding_loss.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "kernels/access.h"
#include "kernels/threads.h"
#include "method/pack_result.h"
#include "ops/evaluated.h"
#include "ops/primitive.h"
#include "ops/rounding/quantize.h"
#include "pass/floats.h"

namespace pennyweight {

namespace {

// Rows whose sums are made in float32 and in order.
constexpr int64_t kSumRows = 64;
constexpr int64_t kSumLanes = 16;

/// sums[i] += x[i]^2; gives the sum of all.
double add_squares(const float* x, int64_t count, float* sums) {
  std::array<float, kSumLanes> lanes{};
  int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) {
    for (int64_t lane = 0; lane < kSumLanes; ++lane) {
      const float square = x[i + lane] * x[i + lane];
      sums[i + lane] += square;
      lanes[size_t(lane)] += square;
    }
  }
  double sum = 0;
  for (; i < count; ++i) {
    sums[i] += x[i] * x[i];
    sum += double(x[i]) * double(x[i]);
  }
  for (const float lane : lanes) {
    sum += double(lane);
  }
  return sum;
}

/// A row as floats, in `buffer` where it is not.
const float* float_row(
    const kernels::ConstMatrix& x,
    int64_t row,
    int64_t columns,
    float* buffer) {
  const void* at = kernels::from_row(x, row).data;
  if (x.type == kernels::DType::f32) {
    return static_cast<const float*>(at);
  }
  kernels::visit_type(x.type, [&]<class T>(T*) {
    std::transform(
        static_cast<const T*>(at),
        static_cast<const T*>(at) + columns,
        buffer,
        [](T value) { return kernels::to_float(value); });
  });
  return buffer;
}

mx::array floats(const mx::array& x) {
  return evaluated(mx::contiguous(mx::astype(x, mx::float32)));
}

/// 1/2 sum_r weights[r] f(r), the rows on all threads and added up in order.
template <class F>
double sum_rows(const std::vector<float>& weights, F&& f) {
  std::vector<double> losses(weights.size());
  kernels::parallel_ranges(
      int64_t(losses.size()), 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          losses[size_t(r)] = double(weights[size_t(r)]) * f(r);
        }
      });
  double loss = 0;
  for (const double row : losses) {
    loss += row;
  }
  return loss / 2;
}

/// The linear's rows of every `step`-th tile, as GPTQ takes them.
RoundedLinear every_tile(const RoundedLinear& linear, int64_t step) {
  std::vector<int32_t> rows;
  std::vector<float> weights;
  const auto count = static_cast<int64_t>(linear.row_weights.size());
  for (int64_t r = 0; r < count; ++r) {
    if (r / kSumLanes % step == 0) {
      rows.push_back(static_cast<int32_t>(r));
      weights.push_back(linear.row_weights[size_t(r)]);
    }
  }
  const mx::array picked(rows.begin(), {static_cast<int>(rows.size())});
  return {
      mx::take(linear.weight, picked, 0),
      linear.metric,
      std::move(weights),
      linear.hessian};
}

/// The loss of the linear's rounding by GPTQ.
double by_gptq(
    const RoundedLinear& linear,
    const mx::array& dense,
    const QuantSpec& spec) {
  GptqOptions options;
  options.rounds = 0;
  options.figures = false;
  const auto result = gptq_quantize(
      dense.data<float>(),
      dense.shape(0),
      linear.hessian,
      spec,
      ops::kernel_type(linear.weight.dtype()),
      options);
  const auto packed = pack_result(result, spec, linear.weight.dtype());
  return rounding_loss(
      ops::dequantize(packed, mx::float32) - dense,
      linear.metric,
      linear.row_weights);
}

}  // namespace

GradientSums::GradientSums(int64_t out, int64_t parts)
    : out_(out), sums_(size_t(out * parts)) {}

mx::array GradientSums::add(
    const mx::array& dy,
    const std::optional<mx::array>& part) {
  auto rows = mx::contiguous(mx::reshape(dy, {-1, dy.shape(-1)}));
  auto owners = part ? mx::contiguous(*part) : mx::array(uint32_t{0});
  mx::eval(rows, owners);
  const auto* owner = part ? owners.data<uint32_t>() : nullptr;
  const int64_t count = rows.shape(0);
  const kernels::ConstMatrix x = ops::matrix_of(std::as_const(rows));
  auto means = evaluated(mx::zeros({int(count), 1}));
  // Chunks end where the owner changes, and are added up in order.
  std::vector<int64_t> starts;
  for (int64_t i = 0, in_chunk = 0; i < count; ++i, ++in_chunk) {
    if (i == 0 || in_chunk == kSumRows || (owner && owner[i] != owner[i - 1])) {
      starts.push_back(i);
      in_chunk = 0;
    }
  }
  starts.push_back(count);
  const auto chunks = int64_t(starts.size()) - 1;
  std::vector<float> sums(size_t(chunks * out_));
  kernels::parallel_tasks(chunks, [&](int64_t chunk) {
    std::vector<float> buffer(static_cast<size_t>(out_));
    for (int64_t i = starts[size_t(chunk)]; i < starts[size_t(chunk) + 1];
         ++i) {
      const double sum = add_squares(
          float_row(x, i, out_, buffer.data()),
          out_,
          &sums[size_t(chunk * out_)]);
      means.data<float>()[i] = float(sum / double(out_));
    }
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t own = owner ? owner[starts[size_t(chunk)]] : 0;
    for (int64_t j = 0; j < out_; ++j) {
      sums_[size_t(own * out_ + j)] += double(sums[size_t(chunk * out_ + j)]);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    total_ += double(means.data<float>()[i]);
  }
  return means;
}

std::vector<float> GradientSums::row_weights(int64_t part) const {
  std::vector<float> weights;
  for (int64_t j = 0; j < out_; ++j) {
    weights.push_back(
        total_ > 0 ? float(sums_[size_t(part * out_ + j)] / total_) : 0.0f);
  }
  return weights;
}

double rounding_loss(
    const mx::array& error,
    const mx::array& metric,
    const std::vector<float>& row_weights) {
  auto e = mx::contiguous(error);
  auto product = ops::linear(e, metric);  // the metric is symmetric
  mx::eval(e, product);
  const int64_t in = e.shape(1);
  return sum_rows(row_weights, [&](int64_t r) {
    const float* a = e.data<float>() + r * in;
    const float* b = product.data<float>() + r * in;
    double sum = 0;
    for (int64_t i = 0; i < in; ++i) {
      sum += double(a[i]) * double(b[i]);
    }
    return sum;
  });
}

Candidate gptq_candidate(int bits, int64_t in) {
  for (const int group : {64, 32}) {
    const QuantSpec spec{"affine", bits, group};
    if (fits(spec, in)) {
      return spec;
    }
  }
  return std::nullopt;
}

double nearest_loss(
    const mx::array& weight,
    const QuantSpec& spec,
    const std::vector<float>& diagonal,
    const std::vector<float>& row_weights) {
  const auto dense = floats(weight);
  const auto rounded =
      floats(ops::dequantize(quantize(weight, spec), mx::float32));
  const int64_t in = weight.shape(1);
  return sum_rows(row_weights, [&](int64_t r) {
    const float* w = dense.data<float>() + r * in;
    const float* q = rounded.data<float>() + r * in;
    double sum = 0;
    for (int64_t i = 0; i < in; ++i) {
      const float e = q[i] - w[i];
      sum += double(e * e * diagonal[size_t(i)]);
    }
    return sum;
  });
}

size_t closest_point(const std::vector<LossPoint>& points, int bits) {
  const auto further = [&](const LossPoint& a, const LossPoint& b) {
    const int first = std::abs(a.spec.bits - bits);
    const int second = std::abs(b.spec.bits - bits);
    return first != second ? first < second : a.spec.bits > b.spec.bits;
  };
  const auto best = std::min_element(points.begin(), points.end(), further);
  return size_t(best - points.begin());
}

std::vector<double> spread_losses(
    const std::vector<LossPoint>& points,
    const std::vector<Candidate>& candidates,
    int64_t in,
    const NearestFn& nearest) {
  std::vector<double> nearest_at;
  for (const auto& point : points) {
    nearest_at.push_back(nearest(point.spec));
  }
  std::vector<double> losses;
  for (const auto& candidate : candidates) {
    if (!candidate) {
      losses.push_back(0);
    } else if (!fits(*candidate, in)) {
      losses.push_back(std::numeric_limits<double>::quiet_NaN());
    } else if (points.empty()) {
      losses.push_back(nearest(*candidate));
    } else {
      const size_t at = closest_point(points, candidate->bits);
      const bool is_point = points[at].spec == *candidate;
      const double own = is_point ? nearest_at[at] : nearest(*candidate);
      // Where nothing is lost by rounding to nearest, nothing is by GPTQ.
      losses.push_back(
          is_point                 ? points[at].loss
              : nearest_at[at] > 0 ? points[at].loss * own / nearest_at[at]
                                   : own);
    }
  }
  return losses;
}

std::vector<double> rounding_losses(
    const RoundedLinear& linear,
    const std::vector<Candidate>& candidates,
    const std::vector<int>& gptq_bits,
    int64_t row_step) {
  const int64_t in = linear.weight.shape(1);
  const auto weights = to_vector(mx::diag(linear.metric));
  const auto nearest = [&](const RoundedLinear& of, const QuantSpec& spec) {
    return nearest_loss(of.weight, spec, weights, of.row_weights);
  };
  const auto part = row_step > 1 ? every_tile(linear, row_step) : linear;
  const auto dense = floats(part.weight);
  std::vector<LossPoint> points;
  for (const int bits : gptq_bits) {
    if (const auto spec = gptq_candidate(bits, in)) {
      double loss = by_gptq(part, dense, *spec);
      if (row_step > 1) {
        const double own = nearest(part, *spec);
        loss *= own > 0 ? nearest(linear, *spec) / own : 1;
      }
      points.push_back({*spec, loss});
    }
  }
  return spread_losses(points, candidates, in, [&](const QuantSpec& spec) {
    return nearest(linear, spec);
  });
}

}  // namespace pennyweight
