#include <gtest/gtest.h>

#include "core/json.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::spec_of;
using testing::tiny_config;

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

std::string all_notes(const DecoderSpec& spec) {
  std::string text;
  for (const auto& note : spec.notes) {
    text += note + "\n";
  }
  return text;
}

TEST(Families, LlamaDefaultsAreMlxLms) {
  auto config = tiny_config();
  for (const char* key :
       {"num_key_value_heads",
        "head_dim",
        "rope_theta",
        "tie_word_embeddings",
        "max_position_embeddings"}) {
    config.erase(key);
  }
  auto spec = spec_of(config);
  ASSERT_EQ(spec.blocks.size(), 2u);
  const auto& attention = spec.blocks[1].attention;
  EXPECT_EQ(attention.kv_heads, 4);
  EXPECT_EQ(attention.head_dim, 8);
  EXPECT_EQ(attention.rope.base, 10000);
  EXPECT_FALSE(attention.q.bias);
  EXPECT_FALSE(spec.head.has_value());
  EXPECT_EQ(attention.q.path, "model.layers.1.self_attn.q_proj");
  EXPECT_TRUE(spec.notes.empty());
}

TEST(Families, NullCountsAsAbsent) {
  auto spec = spec_of(with(
      tiny_config(),
      {{"num_key_value_heads", nullptr},
       {"rope_scaling", nullptr},
       {"sliding_window", nullptr}}));
  EXPECT_EQ(spec.blocks[0].attention.kv_heads, 4);
}

TEST(Families, BiasesAndNormsByFamily) {
  auto llama =
      spec_of(with(tiny_config(), {{"attention_bias", true}})).blocks[0];
  EXPECT_TRUE(llama.attention.q.bias);
  EXPECT_TRUE(llama.attention.o.bias);
  EXPECT_FALSE(llama.mlp->up.bias);
  auto qwen2 = spec_of(tiny_config("qwen2")).blocks[0];
  EXPECT_TRUE(qwen2.attention.v.bias);
  EXPECT_FALSE(qwen2.attention.o.bias);
  EXPECT_FALSE(qwen2.attention.q_norm.has_value());
  auto qwen3 = spec_of(tiny_config("qwen3")).blocks[0];
  EXPECT_FALSE(qwen3.attention.q.bias);
  ASSERT_TRUE(qwen3.attention.q_norm.has_value());
  EXPECT_EQ(qwen3.attention.q_norm->size, 8);
}

TEST(Families, SlidingWindowsComeFromLayerTypes) {
  auto spec = spec_of(with(
      tiny_config("mistral"),
      {{"sliding_window", 16},
       {"layer_types", {"full_attention", "sliding_attention"}}}));
  EXPECT_EQ(spec.blocks[0].attention.window, 0);
  EXPECT_EQ(spec.blocks[1].attention.window, 16);
  // Alone, mlx-lm ignores it; the user is told.
  spec = spec_of(with(tiny_config("mistral"), {{"sliding_window", 16}}));
  EXPECT_EQ(spec.blocks[1].attention.window, 0);
  EXPECT_NE(all_notes(spec).find("sliding_window"), std::string::npos);
}

TEST(Families, WindowsOfQwenAreNotedAndUnused) {
  for (const char* family : {"qwen2", "qwen3"}) {
    auto spec = spec_of(with(
        tiny_config(family),
        {{"use_sliding_window", true}, {"sliding_window", 8}}));
    EXPECT_EQ(spec.blocks[1].attention.window, 0);
    EXPECT_NE(all_notes(spec).find("sliding"), std::string::npos);
  }
}

TEST(Families, HeadBesideSilentTieIsSeparate) {
  auto config = tiny_config();
  auto has = [](const std::string& name) { return name == "lm_head.weight"; };
  EXPECT_FALSE(spec_of(config, has).head.has_value());
  config.erase("tie_word_embeddings");
  auto spec = spec_of(config, has);
  ASSERT_TRUE(spec.head.has_value());
  EXPECT_EQ(spec.config_patch.at("tie_word_embeddings"), false);
}

TEST(Families, RopeParametersArePatched) {
  auto config = tiny_config();
  config.erase("rope_theta");
  config["rope_parameters"] = {
      {"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2.0}};
  auto spec = spec_of(config);
  EXPECT_EQ(spec.blocks[0].attention.rope.base, 5e5);
  EXPECT_EQ(spec.config_patch.at("rope_theta"), 5e5);
  EXPECT_EQ(spec.config_patch.at("rope_scaling").at("factor"), 2.0);
  // qwen3's class reads them itself.
  config["model_type"] = "qwen3";
  spec = spec_of(config);
  EXPECT_EQ(spec.blocks[0].attention.rope.base, 5e5);
  EXPECT_TRUE(spec.config_patch.empty());
}

// mlx-lm's class decides: what it does not read changes nothing there.
TEST(Families, UnreadStructureIsNoted) {
  const std::vector<std::pair<std::string, Json>> changes = {
      {"attn_logit_softcapping", 50.0},
      {"partial_rotary_factor", 0.5},
      {"clip_qkv", 8.0},
      {"hidden_act", "gelu"}};
  for (const auto& [key, value] : changes) {
    const auto spec = spec_of(with(tiny_config(), {{key, value}}));
    EXPECT_NE(all_notes(spec).find(key), std::string::npos);
    EXPECT_EQ(spec.blocks.size(), 2u);
  }
  auto qwen2 = spec_of(with(tiny_config("qwen2"), {{"mlp_bias", true}}));
  EXPECT_FALSE(qwen2.blocks[0].mlp->up.bias);
  spec_of(with(
      tiny_config(),
      {{"architectures", Json::array({"LlamaForSequenceClassification"})}}));
}

TEST(Families, WhatMlxLmCannotLoadIsRefused) {
  expect_error(ErrorCode::not_supported, "full_attention", [] {
    spec_of(with(
        tiny_config(),
        {{"layer_types", {"sliding_attention", "sliding_attention"}},
         {"sliding_window", 4}}));
  });
}

TEST(Families, WhatTheDecoderHasNotIsRefused) {
  struct Case {
    const char* family;
    Json changes;
    const char* named;
  };
  const std::vector<Case> cases = {
      {"helium", {{"attention_bias", false}, {"mlp_bias", false}}, "lm_head"},
      {"internlm3",
       {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}}},
       "rope_scaling"},
      {"minicpm",
       {{"scale_emb", 1}, {"scale_depth", 1}, {"dim_model_base", 32}},
       "lm_head"},
      {"nanbeige", {{"num_loops", 2}}, "num_loops"},
      {"nanbeige", {{"loop_share_kv", true}}, "loop_share_kv"},
      {"seed_oss", Json::object(), "lm_head"},
      {"stablelm",
       {{"layer_norm_eps", 1e-5},
        {"use_qkv_bias", false},
        {"partial_rotary_factor", 1.0},
        {"qk_layernorm", true}},
       "qk_layernorm"}};
  for (const auto& [family, changes, named] : cases) {
    const auto config = with(tiny_config(family), changes);
    expect_error(ErrorCode::not_supported, named, [&] { spec_of(config); });
  }
}

TEST(Families, TensorsDecideWhetherTheHeadIsTied) {
  const auto has = [](const std::string& name) {
    return name == "model.embed_tokens.weight";
  };
  auto config = tiny_config("mixtral");  // whose class does not tie by itself
  config["num_local_experts"] = 2;
  config.erase("tie_word_embeddings");
  auto spec = spec_of(config, has);
  EXPECT_FALSE(spec.head.has_value());
  EXPECT_EQ(spec.config_patch.at("tie_word_embeddings"), true);
  EXPECT_NE(all_notes(spec).find("lm_head"), std::string::npos);
  // A head that the config names must be there.
  spec = spec_of(with(tiny_config(), {{"tie_word_embeddings", false}}), has);
  EXPECT_TRUE(spec.head.has_value());
}

TEST(Families, HarmlessKeysPass) {
  EXPECT_NO_THROW(spec_of(with(
      tiny_config(),
      {{"torch_dtype", "bfloat16"},
       {"transformers_version", "4.40"},
       {"bos_token_id", 1},
       {"eos_token_id", {1, 2}},
       {"attention_dropout", 0.1},
       {"pretraining_tp", 1},
       {"rope_interleaved", false},
       {"logits_scaling", 1.0},
       {"num_local_experts", 8},
       {"router_aux_loss_coef", 0.01},
       {"output_router_logits", true},
       {"vision_config", {{"depth", 2}}},
       {"_name_or_path", "x"}})));
}

TEST(Families, HostileSizesAreCorrupt) {
  const std::vector<std::pair<std::string, Json>> changes = {
      {"hidden_size", int64_t{1} << 40},
      {"hidden_size", 0},
      {"num_hidden_layers", 1000000000},
      {"num_hidden_layers", -1},
      {"vocab_size", int64_t{1} << 62},
      {"num_key_value_heads", 3},
      {"num_attention_heads", "four"},
      {"head_dim", 7},
      {"head_dim", 1 << 30},
      {"rms_norm_eps", -1.0},
      {"rope_theta", 0.0}};
  for (const auto& [key, value] : changes) {
    expect_error(ErrorCode::corrupt, "", [&] {
      spec_of(with(tiny_config(), {{key, value}}));
    });
  }
  for (const char* key : {"head_dim", "max_position_embeddings"}) {
    auto missing = tiny_config("qwen3");
    missing.erase(key);
    expect_error(ErrorCode::corrupt, key, [&] { spec_of(missing); });
  }
}

}  // namespace
}  // namespace pennyweight
