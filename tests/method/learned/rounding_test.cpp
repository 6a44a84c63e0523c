#include "method/learned/rounding.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <cmath>
#include <random>

#include "format/quant_spec.h"
#include "method/gptq/gptq.h"
#include "method/learned/method.h"
#include "method/pack_result.h"
#include "ops/primitive.h"
#include "ops/rounding/quantize.h"
#include "pass/floats.h"
#include "support/expect_error.h"
#include "support/unpack.h"

namespace pennyweight {

namespace {

constexpr int kRows = 24;
constexpr int kColumns = 128;
constexpr int kGroup = 64;

mx::array random_floats(const mx::Shape& shape, unsigned seed) {
  mx::random::seed(seed);
  auto x = mx::random::normal(shape);
  mx::eval(x);
  return x;
}

std::vector<float> values(const mx::array& x) {
  return to_vector(mx::astype(x, mx::float32));
}

bool same(const mx::array& a, const mx::array& b) {
  return a.dtype() == b.dtype() && mx::array_equal(a, b).item<bool>();
}

std::vector<uint8_t> codes_of(const ops::QuantizedWeight& weight) {
  auto codes = testing::unpacked(weight.codes, weight.bits);
  return {codes.data<uint8_t>(), codes.data<uint8_t>() + codes.size()};
}

/// Inputs, a weight, and what GPTQ makes of it.
struct LearnedProblem {
  mx::array x;
  mx::array weight;
  ops::QuantizedWeight start;
  Curvature curvature;  // of loss()

  LearnedProblem(int bits, mx::Dtype dtype, int tokens = 512)
      : x(random_floats({tokens, kColumns}, 1)),
        weight(random_floats({kRows, kColumns}, 2)),
        start(quantize(weight, {"affine", bits, kGroup})) {
    // Channels that go together, which rounding to nearest knows nothing of.
    x = mx::add(x, mx::multiply(mx::array(2.0f), mx::roll(x, 1, 1)));
    auto hessian = mx::matmul(mx::transpose(x), x);
    curvature = {
        std::vector<float>(kRows, 2.0f / float(tokens)),
        values(mx::sum(mx::square(x), 0))};
    GptqOptions options;
    const auto result = gptq_quantize(
        values(weight).data(),
        kRows,
        GptqHessian(values(hessian), kColumns, options),
        {"affine", bits, kGroup},
        ops::kernel_type(dtype),
        options);
    start = pack_result(result, {"affine", bits, kGroup}, dtype);
  }

  /// The mean over tokens of |x (W - Q)^T|^2.
  double loss(const mx::array& q) const {
    const auto y = mx::matmul(x, mx::transpose(difference(q)));
    return mx::sum(mx::square(y)).item<float>() / x.shape(0);
  }
  mx::array gradient(const mx::array& q) const {
    const auto y = mx::matmul(x, mx::transpose(difference(q)));
    return mx::multiply(
        mx::matmul(mx::transpose(y), x), mx::array(2.0f / x.shape(0)));
  }

 private:
  mx::array difference(const mx::array& q) const {
    return mx::subtract(mx::astype(q, mx::float32), weight);
  }
};

Curvature flat() {
  return {std::vector<float>(kRows), std::vector<float>(kColumns)};
}

class Learned : public ::testing::TestWithParam<std::tuple<int, mx::Dtype>> {
 protected:
  int bits() const {
    return std::get<0>(GetParam());
  }
  mx::Dtype dtype() const {
    return std::get<1>(GetParam());
  }
};

void expect_packed_is_weight(const LearnedWeight& weight, mx::Dtype dtype) {
  const auto dense = weight.weight();
  EXPECT_EQ(dense.dtype(), dtype);
  EXPECT_TRUE(same(dense, ops::dequantize(weight.packed(), dtype)));
}

TEST_P(Learned, BeginsAsGptqsBytes) {
  const LearnedProblem problem(bits(), dtype());
  const LearnedWeight weight(problem.start, problem.weight, problem.curvature);
  const auto packed = weight.packed();
  EXPECT_TRUE(same(packed.codes, problem.start.codes));
  EXPECT_TRUE(same(packed.scales, problem.start.scales));
  EXPECT_TRUE(same(*packed.biases, *problem.start.biases));
  EXPECT_EQ(weight.moved(), 0);
  expect_packed_is_weight(weight, dtype());
}

TEST_P(Learned, PackedIsWhatRuns) {
  const LearnedProblem problem(bits(), dtype());
  LearnedWeight weight(problem.start, problem.weight, flat());
  for (int step = 1; step <= 20; ++step) {
    weight.update(
        random_floats({kRows, kColumns}, unsigned(step)),
        {.rate = 0.1, .grid_rate = 0.05, .step = step});
  }
  EXPECT_GT(weight.moved(), 0.1);
  expect_packed_is_weight(weight, dtype());
}

// GPTQ with refit and descent has left no single code whose move would lower
// the loss.
TEST_P(Learned, LowersALinearsLossBelowGptqs) {
  const LearnedProblem problem(bits(), dtype());
  LearnedWeight weight(problem.start, problem.weight, problem.curvature);
  const double before = problem.loss(weight.weight());
  double least = before;
  for (int step = 1; step <= 200; ++step) {
    const double rate = 1 - step / 201.0;
    weight.update(
        problem.gradient(weight.weight()),
        {.rate = 2e-2 * rate, .grid_rate = 1e-3 * rate, .step = step});
    least = std::min(least, problem.loss(weight.weight()));
  }
  EXPECT_LT(least, 0.98 * before);
}

INSTANTIATE_TEST_SUITE_P(
    Widths,
    Learned,
    ::testing::Combine(
        ::testing::Values(2, 3, 4),
        ::testing::Values(mx::float32, mx::bfloat16, mx::float16)));

// Scale and centre against finite differences of the loss in float64. Adam's
// first step tells a gradient's sign alone; the second, after a known first
// gradient, tells its size by that one's.
TEST(LearnedGradients, OfScaleAndCentreAreTheLosss) {
  const LearnedProblem problem(3, mx::float32, 64);
  const auto x = values(problem.x);
  const auto full = values(problem.weight);
  const auto codes = codes_of(problem.start);
  const auto scales = values(problem.start.scales);
  const auto biases = values(*problem.start.biases);
  const double middle = 3.5;
  constexpr int kGroups = kColumns / kGroup;
  // Of row r alone, with a group's scale and centre moved.
  const auto loss = [&](int r, int moved, double ds, double db) {
    double sum = 0;
    for (int t = 0; t < 64; ++t) {
      double y = 0;
      for (int c = 0; c < kColumns; ++c) {
        const int g = c / kGroup;
        const auto at = size_t(r * kGroups + g);
        const double q = codes[size_t(r * kColumns + c)];
        double w = scales[at] * q + biases[at];
        w += g == moved ? ds * (q - middle) + db : 0;
        y += x[size_t(t * kColumns + c)] * (w - full[size_t(r * kColumns + c)]);
      }
      sum += y * y / 64;
    }
    return sum;
  };
  LearnedWeight weight(problem.start, problem.weight, problem.curvature);
  const auto gradient = problem.gradient(weight.weight());
  constexpr double kRate = 1e-2;
  // Latents stay, so that the codes do.
  weight.update(mx::ones({kRows, kColumns}), {.step = 1});
  weight.update(gradient, {.grid_rate = kRate, .step = 2});
  const auto after = weight.packed();
  EXPECT_TRUE(same(after.codes, problem.start.codes));
  const auto new_scales = values(after.scales);
  const auto new_biases = values(*after.biases);
  double unit = 0;
  for (float scale : scales) {
    unit += std::abs(scale) / double(scales.size());
  }
  const auto move = [&](double first, double second) {
    const double m = (0.09 * first + 0.1 * second) / (1 - 0.81);
    const double v =
        (0.0099 * first * first + 0.01 * second * second) / (1 - 0.99 * 0.99);
    return -kRate * unit * m / std::sqrt(v);
  };
  for (int r = 0; r < kRows; ++r) {
    for (int g = 0; g < kGroups; ++g) {
      constexpr double h = 1e-4;  // the loss is quadratic: exact for any
      const double by_scale = (loss(r, g, h, 0) - loss(r, g, -h, 0)) / (2 * h);
      const double by_centre = (loss(r, g, 0, h) - loss(r, g, 0, -h)) / (2 * h);
      double codes_sum = 0;
      for (int c = g * kGroup; c < (g + 1) * kGroup; ++c) {
        codes_sum += codes[size_t(r * kColumns + c)] - middle;
      }
      const auto at = size_t(r * kGroups + g);
      const double ds = new_scales[at] - scales[at];
      const double dc = new_biases[at] - biases[at] + middle * ds;
      // Some float32 roundings of numbers around 1, and of a step's factors.
      const double most = 1e-6 + 1e-3 * kRate * unit;
      EXPECT_NEAR(ds, move(codes_sum, by_scale), most) << r << " " << g;
      EXPECT_NEAR(dc, move(kGroup, by_centre), most) << r << " " << g;
    }
  }
}

// Without a gradient of the loss latents go back to their codes, and none
// moves; taken as if rounding were not there, a small gradient would move all
// in time.
TEST(LearnedCurvature, HoldsWhatDoesNotPay) {
  const LearnedProblem problem(3, mx::float32);
  const auto scales = values(problem.start.scales);
  const auto moved = [&](double share) {
    LearnedWeight weight(problem.start, problem.weight, problem.curvature);
    std::vector<float> values(size_t(kRows * kColumns));
    for (size_t i = 0; i < values.size(); ++i) {
      // Of a loss that is least `share` of a code above each code.
      values[i] = -float(share) * scales[i / kGroup] *
          problem.curvature.rows[0] * problem.curvature.columns[i % kColumns];
    }
    const auto gradient =
        mx::array(values.data(), {kRows, kColumns}, mx::float32);
    for (int step = 1; step <= 400; ++step) {
      weight.update(gradient, {.rate = 1e-2, .step = step});
    }
    return weight.moved();
  };
  EXPECT_EQ(moved(0), 0);
  EXPECT_EQ(moved(0.4), 0);
  EXPECT_GT(moved(0.6), 0.7);  // all but those that are at the top
}

// A latent moves past an end by half a code and no more, and comes back.
TEST(LearnedClamp, AtTheEnds) {
  const auto full = random_floats({kRows, kColumns}, 3);
  for (int bits : {2, 3}) {
    const auto start = quantize(full, {"affine", bits, kGroup});
    LearnedWeight weight(start, full, flat());
    const auto scales = values(start.scales);
    // Down the gradient of every latent, whatever the sign of its scale.
    auto push = [&](float sign, int steps, int from) {
      std::vector<float> values(size_t(kRows * kColumns));
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = scales[i / kGroup] > 0 ? -sign : sign;
      }
      const auto gradient =
          mx::array(values.data(), {kRows, kColumns}, mx::float32);
      for (int i = 0; i < steps; ++i) {
        weight.update(gradient, {.rate = 0.5, .step = from + i});
      }
    };
    const auto top = uint8_t((1 << bits) - 1);
    push(1, 40, 1);
    for (uint8_t code : codes_of(weight.packed())) {
      ASSERT_EQ(code, top);
    }
    // Had they gone on, 40 steps of half a code would be 20 codes to go
    // back; the moments turn within some steps.
    push(-1, 40, 41);
    for (uint8_t code : codes_of(weight.packed())) {
      ASSERT_EQ(code, 0);
    }
  }
}

TEST(LearnedStart, TakesAGroupOfScaleZero) {
  const auto full = mx::zeros({kRows, kColumns}, mx::float32);
  ops::QuantizedWeight start = quantize(full, {"affine", 2, kGroup});
  start.scales = mx::zeros_like(start.scales);
  start.biases = mx::zeros_like(*start.biases);
  LearnedWeight weight(start, full, flat());
  weight.update(
      random_floats({kRows, kColumns}, 4),
      {.rate = 1e-2, .grid_rate = 1e-2, .step = 1});
  for (float value : values(weight.weight())) {
    ASSERT_TRUE(std::isfinite(value));
  }
}

TEST(LearnedCheck, NamesTheFlag) {
  LearnedOptions options;
  options.tokens = 0;
  testing::expect_error(ErrorCode::invalid_argument, "--learn-tokens", [&] {
    check_options(options);
  });
  options = {};
  options.rate = -1;
  testing::expect_error(ErrorCode::invalid_argument, "--learn-rate", [&] {
    check_options(options);
  });
}

}  // namespace

TEST(LearnedMethod, TellsTheFirstMethodWhatWasDone) {
  struct First : BlockMethod {
    std::string name() const override {
      return "first";
    }
    MethodNeeds needs() const override {
      return {};
    }
    int64_t working_bytes(const BlockSpec&) const override {
      return 0;
    }
    BlockFigures run(BlockTask&) override {
      return {};
    }
    void resume(const BlockFigures& figures) override {
      folds = figures.details.value("folds", false);
    }
    bool folds = false;
  };
  const auto first = std::make_shared<First>();
  LearnedMethod(first, LearnedOptions{}).resume({.details = {{"folds", true}}});
  EXPECT_TRUE(first->folds);
}

}  // namespace pennyweight
