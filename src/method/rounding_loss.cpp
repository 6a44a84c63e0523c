#include "method/rounding_loss.h"

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
#include "ops/primitive.h"

namespace pennyweight {

namespace {

// Rows whose sums are made in float32 and in order.
constexpr int64_t kRows = 64;
constexpr int64_t kLanes = 16;

/// sums[i] += x[i]^2; gives the sum of all.
double add_squares(const float* x, int64_t count, float* sums) {
  std::array<float, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
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

template <class T>
void widen(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = kernels::to_float(from[i]);
  }
}

/// A row as floats, in `buffer` where it is not.
const float* float_row(
    const kernels::ConstMatrix& x,
    int64_t row,
    int64_t columns,
    float* buffer) {
  const void* at = kernels::from_row(x, row).data;
  switch (x.type) {
    case kernels::DType::bf16:
      widen(static_cast<const kernels::BFloat16*>(at), columns, buffer);
      return buffer;
    case kernels::DType::f16:
      widen(static_cast<const kernels::Float16*>(at), columns, buffer);
      return buffer;
    default:
      return static_cast<const float*>(at);
  }
}

mx::array floats(const mx::array& x) {
  auto result = mx::contiguous(mx::astype(x, mx::float32));
  mx::eval(result);
  return result;
}

/// Q - W.
mx::array error_of(
    const ops::QuantizedWeight& rounded,
    const mx::array& weight) {
  return mx::subtract(ops::dequantize(rounded, mx::float32), weight);
}

/// GPTQ at one width, beside rounding to nearest.
struct GptqPoint {
  QuantSpec spec;
  double nearest = 0;
  double loss = 0;

  double share() const {
    return nearest > 0 ? loss / nearest : 1;
  }
};

class Losses {
 public:
  explicit Losses(const RoundedLinear& linear)
      : linear_(linear), dense_(floats(linear.weight)) {}

  double nearest(const QuantSpec& spec) const {
    return loss(quantize(linear_.weight, spec));
  }

  double by_gptq(const QuantSpec& spec) const {
    GptqOptions options;
    options.rounds = 0;
    const auto result = gptq_quantize(
        dense_.data<float>(),
        dense_.shape(0),
        linear_.hessian,
        spec,
        ops::kernel_type(linear_.weight.dtype()),
        options);
    return loss(pack_result(result, spec, linear_.weight.dtype()));
  }

 private:
  double loss(const ops::QuantizedWeight& rounded) const {
    return rounding_loss(
        error_of(rounded, dense_), linear_.metric, linear_.row_weights);
  }

  const RoundedLinear& linear_;
  mx::array dense_;
};

}  // namespace

SlopeSums::SlopeSums(int64_t out, int64_t parts)
    : out_(out), sums_(size_t(out * parts)) {}

mx::array SlopeSums::add(
    const mx::array& dy,
    const std::optional<mx::array>& part) {
  auto rows = mx::contiguous(mx::reshape(dy, {-1, dy.shape(-1)}));
  auto owners = part ? mx::contiguous(*part) : mx::array(uint32_t{0});
  mx::eval(rows, owners);
  const auto* owner = part ? owners.data<uint32_t>() : nullptr;
  const int64_t count = rows.shape(0);
  const kernels::ConstMatrix x = ops::matrix_of(std::as_const(rows));
  auto means = mx::zeros({int(count), 1});
  mx::eval(means);
  // Chunks end where the owner changes, and are added up in order.
  std::vector<int64_t> starts;
  for (int64_t i = 0, in_chunk = 0; i < count; ++i, ++in_chunk) {
    if (i == 0 || in_chunk == kRows || (owner && owner[i] != owner[i - 1])) {
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

std::vector<float> SlopeSums::row_weights(int64_t part) const {
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
  std::vector<double> losses(row_weights.size());
  kernels::parallel_ranges(
      int64_t(losses.size()), 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const float* a = e.data<float>() + r * in;
          const float* b = product.data<float>() + r * in;
          double sum = 0;
          for (int64_t i = 0; i < in; ++i) {
            sum += double(a[i]) * double(b[i]);
          }
          losses[size_t(r)] = double(row_weights[size_t(r)]) * sum;
        }
      });
  double loss = 0;
  for (const double row : losses) {
    loss += row;
  }
  return loss / 2;
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

std::optional<size_t> closest_width(const std::vector<int>& widths, int bits) {
  std::optional<size_t> best;
  for (size_t i = 0; i < widths.size(); ++i) {
    const int distance = std::abs(widths[i] - bits);
    const int least = best ? std::abs(widths[*best] - bits) : 0;
    if (!best || distance < least ||
        (distance == least && widths[i] > widths[*best])) {
      best = i;
    }
  }
  return best;
}

std::vector<double> rounding_losses(
    const RoundedLinear& linear,
    const std::vector<Candidate>& candidates,
    const std::vector<int>& gptq_bits) {
  const int64_t in = linear.weight.shape(1);
  const Losses measured(linear);
  std::vector<GptqPoint> points;
  std::vector<int> widths;
  for (const int bits : gptq_bits) {
    if (const auto spec = gptq_candidate(bits, in)) {
      points.push_back(
          {*spec, measured.nearest(*spec), measured.by_gptq(*spec)});
      widths.push_back(bits);
    }
  }
  std::vector<double> losses;
  for (const auto& candidate : candidates) {
    if (!candidate) {
      losses.push_back(0);
      continue;
    }
    if (!fits(*candidate, in)) {
      losses.push_back(std::numeric_limits<double>::quiet_NaN());
      continue;
    }
    const auto at = closest_width(widths, candidate->bits);
    if (at && points[*at].spec == *candidate) {
      losses.push_back(points[*at].loss);
    } else {
      losses.push_back(
          measured.nearest(*candidate) * (at ? points[*at].share() : 1));
    }
  }
  return losses;
}

}  // namespace pennyweight
