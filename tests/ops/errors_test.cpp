#include <functional>

#include "core/error.h"
#include "ops/ops_test.h"

namespace pennyweight::ops {

namespace {

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no Error";
  return ErrorCode::cancelled;
}

TEST(OpsErrors, NameWhatDoesNotFit) {
  const auto x = mx::zeros({2, 8});
  const auto weight = mx::zeros({4, 6});
  try {
    linear(x, weight);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "[linear] x float32 (2,8) and the weight float32 (4,6) do not share "
        "an input width");
  }
  const auto invalid = ErrorCode::invalid_argument;
  const auto square = mx::zeros({8, 8});
  EXPECT_EQ(
      code_of([&] {
        linear(mx::zeros({2, 8}, mx::int32), square);
      }),
      invalid);
  EXPECT_EQ(code_of([&] { linear(x, square, mx::zeros({7})); }), invalid);
  EXPECT_EQ(code_of([&] { linear(x, square, {}, mx::int8); }), invalid);
  EXPECT_EQ(
      code_of([&] {
        linear_add(mx::zeros({2, 7}), x, square);
      }),
      invalid);
  EXPECT_EQ(code_of([&] { rms_norm(x, mx::zeros({7}), 0); }), invalid);
  EXPECT_EQ(code_of([&] { swiglu(x, square); }), invalid);
  EXPECT_EQ(code_of([&] { ops::softmax(mx::zeros({2, 0})); }), invalid);
  EXPECT_EQ(
      code_of([&] {
        rope(mx::zeros({1, 2, 3, 8}), {mx::zeros({3}), 8});
      }),
      invalid);
  EXPECT_EQ(
      code_of([&] {
        const auto q = mx::zeros({1, 2, 3, 8});
        const auto k = mx::zeros({1, 2, 2, 8});
        attention(q, k, k, {});
      }),
      invalid);
  EXPECT_EQ(
      code_of([&] {
        const QuantizedWeight packed{
            mx::zeros({4, 8}, mx::uint32),
            mx::zeros({4, 2}),
            std::nullopt,
            32,
            4,
            "affine"};
        dequantize(packed, mx::float32);
      }),
      invalid);
  EXPECT_EQ(
      code_of([&] {
        const HeadRows head{mx::zeros({2, 4}), mx::zeros({7, 4})};
        const HeadRows other{mx::zeros({2, 4}), mx::zeros({8, 4})};
        score_linear(score_start(2), head, other, mx::zeros({2}, mx::int32), 0);
      }),
      invalid);
}

}  // namespace

}  // namespace pennyweight::ops
