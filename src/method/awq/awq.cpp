// Of W x = (W diag(s)) (x / s) the left factor is rounded. With E = W - Q
// diag(1/s) the linear's loss over all tokens is tr(E G E^T), G = sum x x^T, so
// that a scale is judged without a token being run again; a group's range is
// judged by its own block of G.

#include "method/awq/awq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/threads.h"
#include "method/gptq/grid.h"
#include "method/gptq/tile.h"

namespace pennyweight {

namespace {

using gptq::kLanes;
using gptq::lanes_of;

/// Ends of a range are shrunk to no less than this, as in mlx-lm.
constexpr double kLeastRange = 0.5;

/// kLanes rows: element [column][lane].
class AwqTile {
 public:
  AwqTile(
      const AwqInput& input,
      const QuantSpec& spec,
      kernels::DType dtype,
      const AwqOptions& options)
      : input_(input),
        options_(options),
        size_(spec.group_size),
        groups_(input.columns / size_),
        format_(gptq::make_grid_format(
            kernels::QuantMode::affine,
            spec.bits,
            dtype)),
        weight_(lanes_of(input.columns)),
        codes_(weight_.size()),
        error_(weight_.size()),
        product_(weight_.size()),
        scales_(lanes_of(groups_)),
        biases_(lanes_of(groups_)),
        trial_(lanes_of(size_)),
        trial_codes_(trial_.size()),
        trial_error_(trial_.size()),
        trial_product_(trial_.size()) {}

  void load(int64_t first, int64_t rows) {
    first_ = first;
    rows_ = rows;
    std::fill(weight_.begin(), weight_.end(), 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = input_.weight + (first + r) * input_.columns;
      const float inverse =
          input_.row_scales ? 1 / input_.row_scales[first + r] : 1.0f;
      for (int64_t c = 0; c < input_.columns; ++c) {
        const float scale = input_.column_scales ? input_.column_scales[c] : 1;
        weight_[size_t(c * kLanes + r)] = row[c] * scale * inverse;
      }
    }
  }

  void round() {
    for (int64_t g = 0; g < groups_; ++g) {
      best_.fill(INFINITY);
      const float* weight = weight_.data() + g * size_ * kLanes;
      offer(g, weight);
      if (options_.clip) {
        shrink(g, weight);
      }
      for (int64_t r = 0; r < rows_; ++r) {
        if (!std::isfinite(best_[size_t(r)])) {
          throw numeric_error(
              "awq",
              "the weight, its inputs or a scale holds values that are not "
              "finite or too large for the output type");
        }
      }
    }
  }

  /// tr(E G E^T) of the tile's rows.
  double loss() {
    std::fill(product_.begin(), product_.end(), 0.0f);
    gptq::add_product(
        input_.gram,
        input_.columns,
        input_.columns,
        input_.columns,
        error_.data(),
        product_.data());
    float sums[kLanes];
    double total = 0;
    gptq::lane_dots(error_.data(), product_.data(), input_.columns, sums);
    for (int64_t r = 0; r < rows_; ++r) {
      total += row_square(r) * double(sums[r]);
    }
    return std::max(0.0, total);
  }

  void store(GptqResult& to) const {
    gptq::store_lanes(
        format_.levels,
        first_,
        rows_,
        codes_.data(),
        scales_.data(),
        biases_.data(),
        to);
  }

 private:
  double row_square(int64_t r) const {
    const double scale =
        input_.row_scales ? double(input_.row_scales[first_ + r]) : 1.0;
    return scale * scale;
  }

  /// Ranges [p low, p high], then each end on its own.
  void shrink(int64_t g, const float* weight) {
    const int steps = std::max(1, int(kLeastRange * options_.n_grid));
    Lanes low, high;
    gptq::extremes({weight, size_}, low.data(), high.data());
    Lanes kept_low = low, kept_high = high;
    const auto attempt = [&](const Lanes& from, const Lanes& to) {
      for (int64_t i = 0; i < size_; ++i) {
        for (int64_t l = 0; l < kLanes; ++l) {
          const float value = weight[i * kLanes + l];
          trial_[size_t(i * kLanes + l)] =
              std::min(std::max(value, from[l]), to[l]);
        }
      }
      const auto better = offer(g, trial_.data());
      for (int64_t l = 0; l < kLanes; ++l) {
        kept_low[l] = better[l] ? from[l] : kept_low[l];
        kept_high[l] = better[l] ? to[l] : kept_high[l];
      }
    };
    const auto times = [](const Lanes& x, float factor) {
      Lanes result = x;
      for (float& value : result) {
        value *= factor;
      }
      return result;
    };
    const auto at_each_share = [&](auto&& range) {
      for (int step = 1; step < steps; ++step) {
        range(1 - float(step) / float(options_.n_grid));
      }
    };
    at_each_share([&](float share) {
      Lanes most;
      for (int64_t l = 0; l < kLanes; ++l) {
        most[l] = std::max(-low[l], high[l]) * share;
      }
      attempt(times(most, -1), most);
    });
    if (options_.asymmetric) {
      at_each_share(
          [&](float share) { attempt(times(low, share), kept_high); });
      at_each_share(
          [&](float share) { attempt(kept_low, times(high, share)); });
    }
  }

  using Lanes = std::array<float, kLanes>;

  /// The group rounded to the grid of `shrunk`; kept by the lanes in which it
  /// loses less than what they have.
  std::array<bool, kLanes> offer(int64_t g, const float* shrunk) {
    Lanes scale, bias, loss;
    const gptq::LaneGrid grid{scale.data(), bias.data()};
    gptq::nearest_grid(format_, {shrunk, size_}, grid);
    gptq::round_grids(format_, grid);
    const float* columns = input_.column_scales;
    gptq::round_group(
        format_,
        grid,
        {weight_.data() + g * size_ * kLanes, size_},
        trial_codes_.data(),
        trial_error_.data());
    for (int64_t i = 0; columns && i < size_; ++i) {
      const float inverse = 1 / columns[g * size_ + i];
      for (int64_t l = 0; l < kLanes; ++l) {
        trial_error_[size_t(i * kLanes + l)] *= inverse;
      }
    }
    std::fill(trial_product_.begin(), trial_product_.end(), 0.0f);
    gptq::add_product(
        input_.gram + g * size_ * (input_.columns + 1),
        input_.columns,
        size_,
        size_,
        trial_error_.data(),
        trial_product_.data());
    gptq::lane_dots(
        trial_error_.data(), trial_product_.data(), size_, loss.data());
    return keep(g, scale, bias, loss);
  }

  std::array<bool, kLanes>
  keep(int64_t g, const Lanes& scale, const Lanes& bias, const Lanes& loss) {
    std::array<bool, kLanes> better;
    for (int64_t l = 0; l < kLanes; ++l) {
      better[l] = loss[l] < best_[l];
      if (better[l]) {
        best_[l] = loss[l];
        scales_[size_t(g * kLanes + l)] = scale[l];
        biases_[size_t(g * kLanes + l)] = bias[l];
      }
    }
    float* codes = codes_.data() + g * size_ * kLanes;
    float* error = error_.data() + g * size_ * kLanes;
    for (int64_t i = 0; i < size_; ++i) {
      for (int64_t l = 0; l < kLanes; ++l) {
        const int64_t at = i * kLanes + l;
        codes[at] = better[l] ? trial_codes_[size_t(at)] : codes[at];
        error[at] = better[l] ? trial_error_[size_t(at)] : error[at];
      }
    }
    return better;
  }

  const AwqInput& input_;
  const AwqOptions& options_;
  const int64_t size_;
  const int64_t groups_;
  const gptq::GridFormat format_;
  int64_t first_ = 0;
  int64_t rows_ = 0;
  std::vector<float> weight_;  // scaled
  std::vector<float> codes_;
  std::vector<float> error_;    // before scaling, but for the rows' scales
  std::vector<float> product_;  // G times it
  std::vector<float> scales_, biases_;  // [groups][lane]
  std::vector<float> trial_, trial_codes_, trial_error_, trial_product_;
  Lanes best_{};
};

}  // namespace

void check_options(const AwqOptions& options) {
  auto refuse = [](const std::string& what) {
    throw argument_error("awq", what);
  };
  if (options.n_grid < 1 || options.n_grid > 1000) {
    refuse("--n-grid must be between 1 and 1000");
  }
  if (options.confirm < 1) {
    refuse("--confirm must be 1 or more");
  }
}

std::vector<float> awq_scales(const std::vector<float>& means, double ratio) {
  constexpr double kLeast = 1e-4;
  std::vector<float> scales;
  for (float mean : means) {
    scales.push_back(
        float(std::max(std::pow(std::max(0.0, double(mean)), ratio), kLeast)));
  }
  const auto [low, high] = std::minmax_element(scales.begin(), scales.end());
  const float middle = std::sqrt(*low * *high);
  for (float& scale : scales) {
    scale /= middle;
  }
  return scales;
}

GptqResult awq_round(
    const AwqInput& input,
    const QuantSpec& spec,
    kernels::DType dtype,
    const AwqOptions& options) {
  if (spec.mode != "affine") {
    throw not_supported_error("awq", "mode " + spec.mode);
  }
  if (input.rows <= 0 || input.columns % spec.group_size != 0) {
    throw argument_error(
        "awq",
        "weights don't divide into groups of " +
            std::to_string(spec.group_size));
  }
  auto result = gptq::make_result(input.rows, input.columns, spec.group_size);
  const int64_t tiles = (input.rows + kLanes - 1) / kLanes;
  std::vector<double> losses(static_cast<size_t>(tiles));
  kernels::parallel_ranges(tiles, 1, [&](int64_t begin, int64_t end) {
    AwqTile tile(input, spec, dtype, options);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t * kLanes;
      tile.load(first, std::min(kLanes, input.rows - first));
      tile.round();
      losses[size_t(t)] = tile.loss();
      tile.store(result);
    }
  });
  for (double loss : losses) {
    result.figures.loss += loss;
  }
  return result;
}

}  // namespace pennyweight
