#include <mlx/transforms.h>

#include <functional>

#include "ops/ops_test.h"

namespace pennyweight::ops {

namespace {

using Function = std::function<mx::array(const Arrays&)>;

/// The gradients through ours, against those through MLX's in float32.
void expect_gradients(
    const Function& ours,
    const Function& mlx,
    const Arrays& primals,
    double roundings,
    int depth) {
  const auto all = [](const Function& f) {
    return [f](const Arrays& x) { return Arrays{f(x)}; };
  };
  Arrays wide_primals;
  for (const auto& x : primals) {
    wide_primals.push_back(wide(x));
  }
  const auto result = ours(primals);
  const auto dy = random(result.shape(), result.dtype(), 77);
  const auto actual = mx::vjp(all(ours), primals, {dy}).second;
  const auto expected = mx::vjp(all(mlx), wide_primals, {wide(dy)}).second;
  for (size_t i = 0; i < primals.size(); ++i) {
    SCOPED_TRACE("input " + std::to_string(i));
    expect_close(actual[i], expected[i], primals[i].dtype(), roundings, depth);
  }
}

class Vjp : public Ops {};

TEST_P(Vjp, Linear) {
  const auto type = GetParam();
  expect_gradients(
      [](const Arrays& x) { return linear(x[0], x[1], x[2]); },
      [](const Arrays& x) {
        return mlx_path::linear(x[0], x[1], x[2], mx::float32);
      },
      {random({3, 7, kDepth}, type, 1),
       random({40, kDepth}, type, 2),
       random({40}, type, 3)},
      2,
      kDepth);
}

TEST_P(Vjp, LinearAdd) {
  const auto type = GetParam();
  expect_gradients(
      [](const Arrays& x) { return linear_add(x[0], x[1], x[2]); },
      [](const Arrays& x) {
        return mx::add(
            x[0], mlx_path::linear(x[1], x[2], std::nullopt, mx::float32));
      },
      {random({3, 7, 40}, mx::float32, 4),
       random({3, 7, kDepth}, type, 1),
       random({40, kDepth}, type, 2)},
      type == mx::float32 ? 2 : 4 * unit(type) / unit(mx::float32),
      kDepth);
}

TEST_P(Vjp, RowsOfExperts) {
  const auto type = GetParam();
  constexpr int kTokens = 13, kChosen = 3, kRows = kTokens * kChosen;
  const auto experts = mx::remainder(
      mx::astype(mx::random::bits({kRows}), mx::uint32), mx::array(5u));
  const auto slot = mx::argsort(experts);
  const RowOrder order{
      slot, mx::reshape(mx::argsort(slot), {kTokens, kChosen})};
  expect_gradients(
      [&](const Arrays& x) { return rows_of_slots(x[0], order); },
      [&](const Arrays& x) { return mlx_path::rows_of_slots(x[0], order); },
      {random({kTokens, kDepth}, type, 1)},
      2,
      kChosen);
  expect_gradients(
      [&](const Arrays& x) { return mix_slots(x[0], order, x[1]); },
      [&](const Arrays& x) { return mlx_path::mix_slots(x[0], order, x[1]); },
      {random({kRows, kDepth}, type, 2),
       random({kTokens, kChosen}, mx::float32, 3)},
      2,
      kDepth);
  // And what they are: brought to rows and back with weights that add up to 1.
  const auto x = random({kTokens, kDepth}, type, 4);
  const auto weights = mx::array({0.25f, 0.25f, 0.5f});
  expect_close(
      mix_slots(
          rows_of_slots(x, order),
          order,
          mx::broadcast_to(weights, {kTokens, kChosen})),
      wide(x),
      mx::float32,
      2,
      kChosen);
}

TEST_P(Vjp, ExpertLinear) {
  const auto type = GetParam();
  // The second of four experts has no rows.
  const auto expert = mx::array({0u, 0u, 0u, 2u, 2u, 3u}, mx::uint32);
  const auto of = [](const Arrays& x) {
    std::vector<ExpertWeight> experts;
    for (size_t i = 1; i < x.size(); i += 2) {
      experts.push_back({x[i], std::nullopt, x[i + 1]});
    }
    return experts;
  };
  Arrays primals{random({6, kDepth}, type, 1)};
  for (unsigned i = 0; i < 4; ++i) {
    primals.push_back(random({24, kDepth}, type, 2 + 2 * i));
    primals.push_back(random({24}, type, 3 + 2 * i));
  }
  expect_gradients(
      [&](const Arrays& x) { return expert_linear(x[0], of(x), expert); },
      [&](const Arrays& x) {
        return mlx_path::expert_linear(x[0], of(x), expert, mx::float32);
      },
      primals,
      2,
      kDepth);
}

/// dy [rows, out] times each row's own expert's weight [out, in], summed in
/// float64.
mx::array naive_by_x(
    const mx::array& dy,
    const std::vector<mx::array>& experts,
    const std::vector<uint32_t>& expert) {
  const auto from = mx::contiguous(wide(dy));
  mx::eval(from);
  const auto rows = static_cast<size_t>(from.shape(0));
  const auto out = static_cast<size_t>(from.shape(1));
  const auto in = static_cast<size_t>(experts.front().shape(1));
  std::vector<float> result;
  for (size_t row = 0; row < rows; ++row) {
    const auto weight = mx::contiguous(experts[expert[row]]);
    mx::eval(weight);
    std::vector<double> sums(in);
    for (size_t o = 0; o < out; ++o) {
      const double factor = double{from.data<float>()[row * out + o]};
      for (size_t i = 0; i < in; ++i) {
        sums[i] += factor * double{weight.data<float>()[o * in + i]};
      }
    }
    result.insert(result.end(), sums.begin(), sums.end());
  }
  return mx::array(result.begin(), {int(rows), int(in)});
}

/// By x and the biases, of experts [out, in], the second of which has no rows.
void expect_packed_gradients(
    mx::Dtype type,
    const char* mode,
    int out,
    int in) {
  const std::vector<uint32_t> rows{0, 0, 0, 0, 0, 2, 2};
  const auto expert = mx::array(rows.begin(), {7}, mx::uint32);
  const auto x = random({7, in}, type, 1);
  const auto dy = random({7, out}, type, 2);
  const int group = mode == std::string("nvfp4") ? 16 : 32;
  std::vector<ExpertWeight> experts;
  std::vector<mx::array> dense;
  for (unsigned e = 0; e < 3; ++e) {
    const auto parts =
        mx::quantize(random({out, in}, type, 3 + e), group, 4, mode);
    const auto biases =
        parts.size() > 2 ? std::optional(parts[2]) : std::nullopt;
    const QuantizedWeight weight{parts[0], parts[1], biases, group, 4, mode};
    experts.push_back({std::nullopt, weight, random({out}, type, 9 + e)});
    dense.push_back(dequantize(weight, mx::float32));
  }
  const auto through = [&](const Arrays& inputs) {
    auto own = experts;
    own[2].bias = inputs[1];
    return Arrays{expert_linear(inputs[0], own, expert)};
  };
  const auto found = mx::vjp(through, {x, *experts[2].bias}, {dy}).second;
  expect_close(found[0], naive_by_x(dy, dense, rows), type, 2, out);
  const auto own_rows = mx::slice(wide(dy), {5, 0}, {7, out});
  expect_close(found[1], mx::sum(own_rows, 0), type, 2, 2);
}

TEST_P(Vjp, PackedExpertsByTheirInput) {
  for (const char* mode : {"affine", "mxfp4", "nvfp4"}) {
    SCOPED_TRACE(mode);
    expect_packed_gradients(GetParam(), mode, 40, 128);
  }
}

// Of a weight that is expanded in more than one panel.
TEST(VjpPanels, PackedExpertsByTheirInput) {
  expect_packed_gradients(mx::float32, "mxfp4", 584, 2048);
}

// A gradient that waits for nothing before it is planned: which rows an
// expert has is known only once the stream has done what came before.
TEST(VjpOrder, ExpertsChosenLate) {
  const auto type = mx::float32;
  const auto expert = mx::array({0u, 0u, 1u, 1u, 1u, 1u}, mx::uint32);
  const auto x = random({6, kDepth}, type, 1);
  const auto dy = random({6, 24}, type, 2);
  const Arrays weights{
      random({24, kDepth}, type, 3), random({24, kDepth}, type, 4)};
  const auto slow = mx::zeros({768, 768});
  mx::eval(Arrays{expert, x, dy, weights[0], weights[1], slow});
  const auto zero = mx::sum(mx::matmul(slow, slow));
  const auto late = mx::add(expert, mx::astype(zero, mx::uint32));
  const auto gradients = [&](const mx::array& chosen) {
    const auto through = [&](const Arrays& w) {
      return Arrays{expert_linear(
          x,
          {{w[0], std::nullopt, std::nullopt},
           {w[1], std::nullopt, std::nullopt}},
          chosen)};
    };
    return mx::vjp(through, weights, {dy}).second;
  };
  const auto of_late = gradients(late);
  mx::eval(of_late);
  const auto of_known = gradients(expert);
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_TRUE(mx::array_equal(of_late[i], of_known[i]).item<bool>()) << i;
  }
}

TEST_P(Vjp, QuantizedLinear) {
  const auto type = GetParam();
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    const auto parts =
        mx::quantize(random({32, 128}, mx::float32, 2), 32, bits);
    const auto of = [&](const Arrays& x) {
      return QuantizedWeight{parts[0], x[1], x[2], 32, bits, "affine"};
    };
    expect_gradients(
        [&](const Arrays& x) { return quantized_linear(x[0], of(x)); },
        [&](const Arrays& x) {
          const auto dense =
              mx::dequantize(parts[0], x[1], x[2], 32, bits, "affine");
          return mx::matmul(x[0], mx::transpose(dense));
        },
        {random({5, 128}, type, 1),
         mx::astype(parts[1], type),
         mx::astype(parts[2], type)},
        4 + mlx_roundings(32),  // of a group's sum
        128);
  }
}

TEST_P(Vjp, Dequantize) {
  const auto parts = mx::quantize(random({32, 128}, mx::float32, 2), 64, 4);
  expect_gradients(
      [&](const Arrays& x) {
        return dequantize({parts[0], x[0], x[1], 64, 4, "affine"}, mx::float32);
      },
      [&](const Arrays& x) {
        return mx::dequantize(parts[0], x[0], x[1], 64, 4, "affine");
      },
      {mx::astype(parts[1], GetParam()), mx::astype(parts[2], GetParam())},
      2,
      64);
}

TEST_P(Vjp, RmsNorm) {
  const auto type = GetParam();
  expect_gradients(
      [](const Arrays& x) { return rms_norm(x[0], x[1], 1e-5f); },
      [](const Arrays& x) {
        return mlx_path::rms_norm(x[0], x[1], 1e-5f, mx::float32);
      },
      {random({2, 5, kDepth}, type, 1), random({kDepth}, type, 2)},
      4,
      kDepth);
}

TEST_P(Vjp, Rope) {
  for (bool traditional : {false, true}) {
    RopeTable table{
        mx::exp(mx::multiply(
            mx::astype(mx::arange(0, 8), mx::float32), mx::array(-0.7f))),
        16,
        traditional,
        1.3f};
    expect_gradients(
        [&](const Arrays& x) { return rope(x[0], table, 3); },
        [&](const Arrays& x) { return mlx_path::rope(x[0], table, 3); },
        {random({2, 9, 3, 24}, GetParam(), 1)},
        4,
        64);
  }
}

TEST_P(Vjp, Activations) {
  using Gated = mx::array (*)(const mx::array&, const mx::array&);
  const std::pair<Gated, Gated> all[] = {
      {swiglu, mlx_path::swiglu},
      {geglu, mlx_path::geglu},
      {clipped_glu, mlx_path::clipped_glu}};
  for (const auto& [ours, theirs] : all) {
    // Some of both are beyond what clipped_glu clips at.
    expect_gradients(
        [&](const Arrays& x) { return ours(x[0], x[1]); },
        [&](const Arrays& x) { return theirs(x[0], x[1]); },
        {random({6, 50}, GetParam(), 1, 5), random({6, 50}, GetParam(), 2, 5)},
        4,
        16);
  }
}

TEST_P(Vjp, Attention) {
  for (int window : {0, 5}) {
    for (float cap : {0.0f, 3.0f}) {
      AttentionOptions options{.scale = 0.4f, .window = window, .cap = cap};
      expect_gradients(
          [&](const Arrays& x) { return attention(x[0], x[1], x[2], options); },
          [&](const Arrays& x) {
            return mlx_path::attention(x[0], x[1], x[2], options);
          },
          {random({2, 30, 4, 16}, GetParam(), 1),
           random({2, 30, 2, 16}, GetParam(), 2),
           random({2, 30, 2, 16}, GetParam(), 3)},
          8,
          128);
    }
  }
}

TEST_P(Vjp, Softmax) {
  expect_gradients(
      [](const Arrays& x) { return ops::softmax(x[0]); },
      [](const Arrays& x) { return mlx_path::softmax(x[0]); },
      {random({4, 33}, GetParam(), 1)},
      4,
      64);
}

INSTANTIATE_OPS_TEST(Vjp);

}  // namespace

}  // namespace pennyweight::ops
