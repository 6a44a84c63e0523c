#include "run/time/width_rates.h"

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "kernels/threads.h"
#include "method/learned/rounding.h"
#include "method/learned/rounding_loss.h"
#include "method/pack_result.h"
#include "ops/evaluated.h"
#include "ops/primitive.h"
#include "ops/rounding/quantize.h"
#include "pass/floats.h"

namespace pennyweight {

namespace {

// Wider linears are timed in parts of these widths.
constexpr int64_t kWide = 4096;
constexpr int64_t kNarrow = 2048;
// Rows that are timed: as many as runs take at once of what no block holds, or
// enough for all threads, each of which takes 16 at a time, and to leave the
// caches.
constexpr int64_t kThreadRows = 128;
constexpr int64_t kWeights = int64_t{1} << 20;

int64_t timed_rows(const WidthSample& sample) {
  const int64_t rows = std::max(
      kThreadRows * kernels::thread_count(), kWeights / sample.weight.shape(1));
  return std::min<int64_t>(sample.weight.shape(0), std::max(rows, sample.rows));
}

mx::array corner(const mx::array& x, int64_t rows, int64_t columns) {
  return evaluated(mx::contiguous(mx::slice(
      x, {0, 0}, {static_cast<int>(rows), static_cast<int>(columns)})));
}

/// The part of the sample with the first inputs only.
WidthSample part_of(const WidthSample& sample, int64_t in) {
  const auto& sums = sample.sums;
  const int64_t out = sample.weight.shape(0);
  WidthSample part{
      corner(sample.weight, out, in),
      {sums.tokens,
       corner(sums.hessian, in, in),
       std::nullopt,
       std::nullopt,
       std::nullopt},
      sample.rows};
  if (sums.input_shift) {
    part.sums.input_shift = corner(*sums.input_shift, in, in);
  }
  if (sums.output_shift) {
    part.sums.output_shift =
        corner(*sums.output_shift, sums.output_shift->shape(0), in);
  }
  return part;
}

class WidthProbe {
 public:
  WidthProbe(const WidthSample& sample, mx::Dtype dtype, RateSampler& sampler)
      : sample_(sample),
        dtype_(dtype),
        sampler_(sampler),
        in_(sample.weight.shape(1)),
        rows_(timed_rows(sample)),
        weight_(corner(sample.weight, rows_, in_)),
        dense_(corner(mx::astype(sample.weight, mx::float32), rows_, in_)) {}

  WidthRates measure(bool tables) {
    WidthRates rates;
    const auto spec = gptq_candidate(4, in_);
    if (!spec) {
      return rates;  // linears of this width stay as they are
    }
    rates.factor = sampler_.seconds([&] { hessian_.emplace(factored()); });
    const GptqOptions options;
    rates.round = a_row([&] { round(*spec, options, shift()); });
    GptqOptions pass;
    pass.rounds = 0;
    pass.figures = false;
    rates.pass = a_row([&] { round(*spec, pass, {}); });
    const std::vector<float> ones(static_cast<size_t>(rows_), 1.0f);
    const std::vector<float> diagonal(static_cast<size_t>(in_), 1.0f);
    rates.nearest_loss =
        a_row([&] { nearest_loss(weight_, *spec, diagonal, ones); });
    std::optional<ops::QuantizedWeight> packed;
    rates.nearest = a_row([&] {
      packed = quantize(weight_, *spec);
      mx::eval(packed->codes, packed->scales, *packed->biases);
    });
    rates.expand = a_row([&] { mx::eval(ops::dequantize(*packed, dtype_)); });
    if (tables) {
      return rates;
    }
    rates.loss =
        a_row([&] { rounding_loss(dense_, sample_.sums.hessian, ones); });
    LearnedWeight learned(*packed, dense_, {ones, diagonal});
    const auto gradient = evaluated(dense_ * mx::array(1e-3f));
    int64_t step = 0;
    rates.learn = a_row([&] {
      learned.update(
          gradient,
          {.rate = 1e-3, .grid_rate = 1e-3, .factor = 1, .step = ++step});
      mx::eval(learned.weight());
    });
    return rates;
  }

 private:
  template <class F>
  double a_row(F&& f) {
    return sampler_.seconds(f) / double(rows_);
  }

  GptqHessian factored() {
    input_shift_ = sample_.sums.input_shift
        ? to_vector(*sample_.sums.input_shift)
        : std::vector<float>();
    output_shift_ = sample_.sums.output_shift
        ? to_vector(*sample_.sums.output_shift)
        : std::vector<float>();
    return GptqHessian(to_vector(sample_.sums.hessian), in_, GptqOptions{});
  }

  GptqShift shift() const {
    return {
        input_shift_.empty() ? nullptr : input_shift_.data(),
        output_shift_.empty() ? nullptr : output_shift_.data()};
  }

  void round(
      const QuantSpec& spec,
      const GptqOptions& options,
      const GptqShift& shift) const {
    const auto result = gptq_quantize(
        dense_.data<float>(),
        rows_,
        *hessian_,
        spec,
        ops::kernel_type(dtype_),
        options,
        shift);
    pack_result(result, spec, dtype_);
  }

  const WidthSample& sample_;
  mx::Dtype dtype_;
  RateSampler& sampler_;
  int64_t in_;
  int64_t rows_;
  mx::array weight_;
  mx::array dense_;
  std::optional<GptqHessian> hessian_;
  std::vector<float> input_shift_, output_shift_;
};

}  // namespace

WidthRates measure_width(
    const WidthSample& sample,
    mx::Dtype dtype,
    RateSampler& sampler,
    bool tables) {
  const int64_t in = sample.weight.shape(1);
  if (in <= kWide) {
    return WidthProbe(sample, dtype, sampler).measure(tables);
  }
  const auto narrow_part = part_of(sample, kNarrow);
  const auto wide_part = part_of(sample, kWide);
  const auto narrow = WidthProbe(narrow_part, dtype, sampler).measure(tables);
  const auto wide = WidthProbe(wide_part, dtype, sampler).measure(tables);
  WidthRates whole;
  for (const auto& [name, rate, power] : kWidthRates) {
    whole.*rate =
        at_width(in, {kNarrow, narrow.*rate}, {kWide, wide.*rate}, power);
  }
  return whole;
}

}  // namespace pennyweight
