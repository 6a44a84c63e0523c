// W = s (q - c) + b, q = round(t): dL/dt = s (dL/dW + h s (t - q)),
// dL/ds = sum dL/dW (q - c), dL/db = sum dL/dW. Adam on t, s and b.
#include "method/learned/rounding.h"

#include <mlx/allocator.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "kernels/threads.h"
#include "method/learned/lanes.h"
#include "ops/evaluated.h"
#include "ops/rounding/pack.h"
#include "pass/floats.h"

namespace pennyweight {

namespace {

// A latent's most distance from its code at the start. Less than the half that
// rounding to that code allows: those that GPTQ has moved would all stand at an
// edge, and cross it in the first steps together.
constexpr float kWithin = 0.3f;

void require(bool holds, const char* text) {
  if (!holds) {
    throw argument_error("learn", text);
  }
}

std::vector<float> floats_of(const mx::array& x) {
  return to_vector(mx::contiguous(mx::astype(x, mx::float32)));
}

// To nearest, ties to even; finite values.
void to_bfloat16(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    const auto word = std::bit_cast<uint32_t>(x[i]);
    out[i] = static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
  }
}

mx::array blank(int64_t rows, int64_t columns, mx::Dtype dtype) {
  const mx::Shape shape{static_cast<int>(rows), static_cast<int>(columns)};
  const auto bytes = static_cast<size_t>(rows * columns) * mx::size_of(dtype);
  return mx::array(mx::allocator::malloc(bytes), shape, dtype);
}

}  // namespace

void check_options(const LearnedOptions& options) {
  require(options.steps >= 0, "--learn-steps is negative");
  require(options.tokens > 0, "--learn-tokens must be 1 or more");
  require(
      options.rate >= 0 && options.rate <= 1,
      "--learn-rate must be from 0 to 1");
  require(
      options.grid_rate >= 0 && options.grid_rate <= 1,
      "--learn-grid-rate must be from 0 to 1");
  require(
      options.max_bits >= 0 && options.max_bits <= 8,
      "--learn-max-bits must be from 0 to 8");
}

LearnedWeight::LearnedWeight(
    const ops::QuantizedWeight& start,
    const mx::array& full,
    const Curvature& curvature)
    : start_(start),
      rows_(full.shape(0)),
      columns_(full.shape(1)),
      top_(static_cast<float>((1 << start.bits) - 1)),
      middle_(0.5f * top_),
      curvature_(curvature),
      start_scale_(floats_of(start.scales)),
      start_bias_(floats_of(*start.biases)),
      scale_(start_scale_.size()),
      centre_(start_scale_.size()),
      scales_(start.scales),
      biases_(*start.biases),
      own_scale_(start_scale_),
      own_bias_(start_bias_) {
  double sum = 0;
  for (float scale : start_scale_) {
    sum += std::abs(scale);
  }
  unit_ = static_cast<float>(sum / static_cast<double>(start_scale_.size()));
  const auto count = static_cast<size_t>(rows_ * columns_);
  latent_ = floats_of(full);
  m_.resize(count);
  v_.resize(count);
  const auto stored = evaluated(mx::contiguous(start.codes));
  start_codes_.resize(count);
  unpack_codes(
      stored.data<uint8_t>(),
      static_cast<int64_t>(count),
      start.bits,
      start_codes_.data());
  const auto group = static_cast<size_t>(start.group_size);
  for (size_t i = 0; i < count; ++i) {
    const float code = start_codes_[i];
    const float scale = start_scale_[i / group];
    const float exact = (latent_[i] - start_bias_[i / group]) / scale;
    // A scale of 0, too, gives something that is not a number.
    latent_[i] = std::isfinite(exact)
        ? std::clamp(exact, code - kWithin, code + kWithin)
        : code;
  }
}

mx::array LearnedWeight::weight() const {
  const auto dtype = start_.scales.dtype();
  const bool half = dtype == mx::bfloat16;
  auto out = blank(rows_, columns_, half ? dtype : mx::float32);
  const int64_t group = start_.group_size;
  const int64_t groups = columns_ / group;
  kernels::parallel_ranges(rows_, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(columns_));
    for (int64_t r = begin; r < end; ++r) {
      float* to = half ? row.data() : out.data<float>() + r * columns_;
      for (int64_t g = 0; g < groups; ++g) {
        const auto at = static_cast<size_t>(r * groups + g);
        learned::expand_group(
            {group,
             latent_.data() + r * columns_ + g * group,
             own_scale_[at],
             own_bias_[at],
             top_,
             to + g * group});
      }
      if (half) {
        to_bfloat16(to, columns_, out.data<uint16_t>() + r * columns_);
      }
    }
  });
  if (out.dtype() == dtype) {
    return out;
  }
  return evaluated(mx::astype(out, dtype));
}

std::vector<uint8_t> LearnedWeight::codes() const {
  std::vector<uint8_t> codes(latent_.size());
  kernels::parallel_ranges(rows_, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(columns_));
    for (int64_t r = begin; r < end; ++r) {
      learned::round_group(
          latent_.data() + r * columns_, columns_, top_, row.data());
      std::transform(
          row.begin(), row.end(), codes.begin() + r * columns_, [](float code) {
            return static_cast<uint8_t>(code);
          });
    }
  });
  return codes;
}

ops::QuantizedWeight LearnedWeight::packed() const {
  auto weight = start_;
  const auto own = codes();
  weight.codes =
      blank(start_.codes.shape(0), start_.codes.shape(1), mx::uint32);
  pack_codes(
      own.data(),
      static_cast<int64_t>(own.size()),
      start_.bits,
      weight.codes.data<uint8_t>());
  weight.scales = scales_;
  weight.biases = biases_;
  return weight;
}

void LearnedWeight::update(const mx::array& gradient, const LearnStep& step) {
  if (gradient.dtype() != mx::float32) {
    throw argument_error("learned", "the gradient is not float32");
  }
  const auto dense = evaluated(mx::contiguous(gradient));
  const double t = static_cast<double>(step.step);
  learned::AdamFactors adam{
      static_cast<float>(step.rate),
      static_cast<float>(1 / (1 - std::pow(double{learned::kBeta1}, t))),
      static_cast<float>(1 / (1 - std::pow(double{learned::kBeta2}, t))),
      static_cast<float>(step.factor)};
  const float grid_rate =
      static_cast<float>(step.grid_rate) * unit_ * adam.mean;
  const auto move = [&](Grid& grid, size_t i, float gradient) {
    float& m = grid.m[i];
    float& v = grid.v[i];
    m += (1 - learned::kBeta1) * (gradient - m);
    v += (1 - learned::kBeta2) * (gradient * gradient - v);
    grid.value[i] -=
        grid_rate * m / (std::sqrt(v * adam.square) + learned::kEps);
  };
  const int64_t group = start_.group_size;
  const int64_t groups = columns_ / group;
  kernels::parallel_ranges(rows_, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * groups; i < end * groups; ++i) {
      const auto at = static_cast<size_t>(i);
      learned::LearnGroup own{
          group,
          dense.data<float>() + i * group,
          curvature_.columns.data() + i % groups * group,
          curvature_.rows[static_cast<size_t>(i / groups)],
          own_scale_[at],
          middle_,
          top_,
          latent_.data() + i * group,
          m_.data() + i * group,
          v_.data() + i * group,
          0,
          0};
      learned::learn_group(own, adam);
      move(scale_, at, own.by_scale);
      move(centre_, at, own.by_centre);
    }
  });
  settle();
}

// Scales and biases as they will be stored. The bias is that of the scale as
// it was rounded, so that the centre stays where it is.
void LearnedWeight::settle() {
  const auto shape = start_.scales.shape();
  const auto array = [&](const std::vector<float>& values) {
    return mx::array(values.data(), shape, mx::float32);
  };
  std::vector<float> wanted(own_scale_.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i] = start_scale_[i] + scale_.value[i];
  }
  scales_ = mx::astype(array(wanted), start_.scales.dtype());
  own_scale_ = floats_of(scales_);
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i] = start_bias_[i] +
        (centre_.value[i] - middle_ * (own_scale_[i] - start_scale_[i]));
  }
  biases_ = mx::astype(array(wanted), start_.biases->dtype());
  own_bias_ = floats_of(biases_);
}

double LearnedWeight::moved() const {
  const auto now = codes();
  int64_t moved = 0;
  for (size_t i = 0; i < now.size(); ++i) {
    moved += now[i] != start_codes_[i];
  }
  return static_cast<double>(moved) / static_cast<double>(now.size());
}

}  // namespace pennyweight
