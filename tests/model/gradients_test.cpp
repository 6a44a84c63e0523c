#include "model/gradients.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include "core/json.h"
#include "model/stream/columns.h"
#include "support/tiny_model.h"

namespace pennyweight {

namespace {

using testing::tiny_config;
using testing::TinyModel;

Json experts_config() {
  auto config = tiny_config("qwen3_moe");
  config.update(Json{
      {"num_experts", 4},
      {"num_experts_per_tok", 2},
      {"moe_intermediate_size", 16},
      {"decoder_sparse_step", 1},
      {"mlp_only_layers", Json::array()},
      {"norm_topk_prob", true}});
  return config;
}

/// dy^T x of a trace, of one expert where it is theirs.
mx::array product(const LinearTrace& trace, int64_t part) {
  auto x = mx::reshape(*trace.x, {-1, trace.x->shape(-1)});
  auto dy = mx::reshape(*trace.dy, {-1, trace.dy->shape(-1)});
  if (trace.expert) {
    const auto own = mx::equal(*trace.expert, mx::array(uint32_t(part)));
    dy = mx::multiply(dy, mx::expand_dims(mx::astype(own, mx::float32), 1));
  }
  return mx::matmul(mx::transpose(dy), x);
}

// Block 1 reads the keys of block 0, and has heads of another size than blocks
// that slide, experts and what tokens bring.
Json gemma4_config() {
  auto config = tiny_config("gemma4_text");
  config.update(Json{
      {"num_hidden_layers", 3},
      {"layer_types", {"full_attention", "full_attention", "full_attention"}},
      {"global_head_dim", 16},
      {"sliding_window", 4},
      {"num_kv_shared_layers", 2},
      {"enable_moe_block", true},
      {"num_experts", 4},
      {"top_k_experts", 2},
      {"moe_intermediate_size", 16},
      {"hidden_size_per_layer_input", 8},
      {"vocab_size_per_layer_input", 61}});
  return config;
}

// A weight's gradient is the sum over tokens of dy x^T, summed in another
// order by the two.
void expect_gradients(const Json& config) {
  mx::set_default_device(mx::Device::cpu);
  const TinyModel tiny(config);
  const BlockSpec& block = tiny.model.spec.blocks[1];
  const auto weights = load_block(tiny.model, 1, mx::float32);
  const auto x =
      mx::random::normal({2, 7, input_columns(block)}, mx::random::key(1));
  const auto dy =
      mx::random::normal({2, 7, given_columns(block)}, mx::random::key(2));
  std::vector<std::string> paths;
  for (const auto& module : list_modules(block)) {
    paths.push_back(module.path);
  }
  const auto expected = block_gradients(block, weights, paths, x, dy, {});
  const auto traces = trace_block(block, weights, x, dy, {});
  EXPECT_TRUE(mx::allclose(traces.x, expected.x, 1e-5, 1e-5).item<bool>());
  for (const auto& module : list_modules(block)) {
    const auto& trace =
        traces.linears.at(module.expert ? module.stored : module.path);
    const auto found = product(trace, module.part);
    const auto& gradient = expected.weights.at(module.path);
    EXPECT_TRUE(mx::allclose(found, gradient, 1e-4, 1e-5).item<bool>())
        << module.path;
  }
}

TEST(TraceBlock, GivesTheWeightsGradients) {
  expect_gradients(tiny_config());
}

TEST(TraceBlock, OfExpertsToo) {
  expect_gradients(experts_config());
}

TEST(TraceBlock, OfSharedKeysAndTokenInputs) {
  expect_gradients(gemma4_config());
}

}  // namespace

}  // namespace pennyweight
