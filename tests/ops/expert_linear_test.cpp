#include "ops/expert_linear.h"

#include <vector>

#include "core/error.h"
#include "kernels/threads.h"
#include "ops/ops_test.h"

// Each row against a sum in float64 over its expert's weights.

namespace pennyweight::ops {

namespace {

constexpr int kExperts = 5;
constexpr int kOut = 33;

std::vector<ExpertWeight> random_experts(mx::Dtype type, bool bias) {
  std::vector<ExpertWeight> experts;
  for (int e = 0; e < kExperts; ++e) {
    experts.push_back(
        {random({kOut, kDepth}, type, 2 + e), std::nullopt, std::nullopt});
    if (bias) {
      experts.back().bias = random({kOut}, type, 20 + e);
    }
  }
  return experts;
}

mx::array naive(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const std::vector<uint32_t>& expert) {
  const auto dense_x = mx::contiguous(wide(x));
  mx::eval(dense_x);
  std::vector<float> result;
  for (size_t row = 0; row < expert.size(); ++row) {
    const auto& own = experts[expert[row]];
    const auto weight = mx::contiguous(wide(*own.dense));
    const auto bias =
        mx::contiguous(own.bias ? wide(*own.bias) : mx::zeros({kOut}));
    mx::eval({weight, bias});
    for (int o = 0; o < kOut; ++o) {
      double sum = double(bias.data<float>()[o]);
      for (size_t i = 0; i < kDepth; ++i) {
        sum += double(dense_x.data<float>()[row * kDepth + i]) *
            double(weight.data<float>()[size_t(o) * kDepth + i]);
      }
      result.push_back(float(sum));
    }
  }
  return mx::array(result.begin(), {int(expert.size()), kOut});
}

mx::array to_array(const std::vector<uint32_t>& rows) {
  return mx::array(rows.begin(), {int(rows.size())}, mx::uint32);
}

class ExpertLinear : public Ops {};

TEST_P(ExpertLinear, ExpertsWithAndWithoutRows) {
  const auto type = GetParam();
  const std::vector<std::vector<uint32_t>> cases{
      {0, 0, 0, 2, 3, 3, 4}, {0, 1, 2, 3, 4, 4, 4}, {3, 3, 3, 3, 3, 3, 3}};
  for (const auto& rows : cases) {
    const auto x = random({int(rows.size()), kDepth}, type, 1);
    const auto expert = to_array(rows);
    const auto plain = random_experts(type, false);
    const auto biased = random_experts(type, true);
    expect_close(
        expert_linear(x, plain, expert),
        naive(x, plain, rows),
        type,
        1,
        kDepth);
    const auto exact = naive(x, biased, rows);
    for (const auto& result :
         {expert_linear(x, biased, expert, mx::float32),
          mlx_path::expert_linear(wide(x), biased, expert, mx::float32)}) {
      expect_close(result, exact, mx::float32, 1, kDepth);
    }
  }
}

TEST_P(ExpertLinear, PackedEqualsExpanded) {
  const auto type = GetParam();
  std::vector<ExpertWeight> packed, dense;
  for (int e = 0; e < kExperts; ++e) {
    const auto weight = random({kOut, kDepth}, type, 2 + e);
    const auto parts = mx::quantize(weight, 32, 4);
    packed.push_back(
        {std::nullopt,
         QuantizedWeight{parts[0], parts[1], parts[2], 32, 4, "affine"},
         std::nullopt});
    dense.push_back(
        {dequantize(*packed.back().packed, type), std::nullopt, std::nullopt});
  }
  const std::vector<uint32_t> rows{0, 1, 1, 1, 4, 4};
  const auto x = random({6, kDepth}, type, 1);
  expect_close(
      expert_linear(x, packed, to_array(rows)),
      naive(x, dense, rows),
      type,
      1,
      kDepth);
}

TEST_P(ExpertLinear, StridedInputsAndNoRows) {
  const auto type = GetParam();
  const auto x = mx::transpose(random({kDepth, 4}, type, 1));
  auto experts = random_experts(type, false);
  for (auto& own : experts) {
    own.dense = mx::transpose(mx::contiguous(mx::transpose(*own.dense)));
  }
  const std::vector<uint32_t> rows{0, 2, 2, 4};
  expect_close(
      expert_linear(x, experts, to_array(rows)),
      naive(x, experts, rows),
      type,
      1,
      kDepth);
  const auto none = expert_linear(
      mx::zeros({0, kDepth}, type), experts, mx::zeros({0}, mx::uint32));
  mx::eval(none);
  EXPECT_EQ(none.shape(), (mx::Shape{0, kOut}));
}

// As many pieces as one number of threads takes as tasks, and another not.
TEST_P(ExpertLinear, ThreadsDoNotChangeTheRows) {
  const auto type = GetParam();
  constexpr int kCount = 10;
  constexpr int kIn = 1600;
  std::vector<ExpertWeight> experts;
  std::vector<uint32_t> rows;
  for (uint32_t e = 0; e < kCount; ++e) {
    experts.push_back(
        {random({kIn / 8, kIn}, type, 2 + int(e)), std::nullopt, std::nullopt});
    rows.insert(rows.end(), 3 + 13 * e, e);
  }
  const auto x = random({int(rows.size()), kIn}, type, 1);
  const auto make = [&](int threads) {
    kernels::override_thread_count(threads);
    auto made = expert_linear(x, experts, to_array(rows));
    mx::eval(made);
    return made;
  };
  const auto one = make(1);
  for (const int threads : {2, 3, 8}) {
    EXPECT_TRUE(mx::array_equal(make(threads), one).item<bool>())
        << threads << " threads";
  }
  kernels::override_thread_count(0);
}

INSTANTIATE_OPS_TEST(ExpertLinear);

TEST(ExpertLinearErrors, ShapesThatDoNotFit) {
  const auto x = mx::zeros({3, 8});
  const auto expert = mx::zeros({3}, mx::uint32);
  const ExpertWeight one{mx::zeros({4, 8}), std::nullopt, std::nullopt};
  const ExpertWeight other{mx::zeros({5, 8}), std::nullopt, std::nullopt};
  const ExpertWeight biased{mx::zeros({4, 8}), std::nullopt, mx::zeros({4})};
  EXPECT_THROW(expert_linear(x, {}, expert), Error);
  EXPECT_THROW(expert_linear(x, {one, other}, expert), Error);
  EXPECT_THROW(expert_linear(x, {one, biased}, expert), Error);
  EXPECT_THROW(expert_linear(mx::zeros({3, 7}), {one}, expert), Error);
  EXPECT_THROW(expert_linear(x, {one}, mx::zeros({2}, mx::uint32)), Error);
  EXPECT_THROW(expert_linear(x, {one}, mx::zeros({3}, mx::int32)), Error);
}

}  // namespace

}  // namespace pennyweight::ops
