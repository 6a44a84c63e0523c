#include "model/config/class_config.h"

#include <gtest/gtest.h>

#include "core/json.h"
#include "support/expect_error.h"

namespace pennyweight {
namespace {

using testing::expect_error;

ClassConfig read(const Json& config, const std::string& name) {
  return class_config(JsonView(config, "config.json"), model_class(name));
}

std::string all_notes(const ClassConfig& config) {
  std::string text;
  for (const auto& note : config.notes) {
    text += note + "\n";
  }
  return text;
}

const std::vector<std::string> kClasses = {
    "afmoe",
    "apertus",
    "bailing_moe",
    "cohere",
    "cohere2",
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "dots1",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone",
    "exaone4",
    "exaone_moe",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "granite",
    "granitemoe",
    "helium",
    "hunyuan_v1_dense",
    "internlm2",
    "internlm3",
    "kimi_k25",
    "laguna",
    "lille-130m",
    "llama",
    "mellum",
    "mimo",
    "minicpm",
    "minicpm3",
    "minimax",
    "ministral3",
    "mistral3",
    "mistral4",
    "mixtral",
    "muse_glimmer",
    "nanbeige",
    "nemotron",
    "olmo2",
    "olmo3",
    "olmoe",
    "openelm",
    "phi",
    "phi3",
    "phimoe",
    "qwen",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_moe",
    "qwen3_next",
    "seed_oss",
    "smollm3",
    "solar_open",
    "stablelm",
    "starcoder2",
    "telechat3",
    "youtu_llm",
    "qwen3_5.TextModelArgs"};

// As if mlx-lm read a key of which a family here knows nothing.
TEST(ClassConfig, AKeyThatOnlyTheClassReadsIsNamed) {
  for (const auto& name : kClasses) {
    const ModelClass& type = model_class(name);
    for (const ClassKey& unread : type.keys) {
      if (unread.name == std::string("model_type")) {
        continue;
      }
      ClassConfig config;
      std::set<std::string> reads;
      for (const ClassKey& key : type.keys) {
        config.values[key.name] = "a value";
        if (&key != &unread) {
          reads.insert(key.name);
        }
      }
      const auto quoted = "\"" + std::string(unread.name) + "\"";
      expect_error(ErrorCode::not_supported, quoted.c_str(), [&] {
        check_reads(config, type, reads, Json::object(), "config.json");
      });
      reads.insert(unread.name);
      check_reads(config, type, reads, Json::object(), "config.json");
      // Absent, it is missing, unless the class has a default.
      config.values.erase(unread.name);
      if (unread.fallback || unread.name == std::string("text_config")) {
        check_reads(config, type, reads, Json::object(), "config.json");
      } else {
        expect_error(ErrorCode::corrupt, quoted.c_str(), [&] {
          check_reads(config, type, reads, Json::object(), "config.json");
        });
      }
    }
  }
}

TEST(ClassConfig, TheClassDefaultIsNoChange) {
  const ModelClass& type = model_class("llama");
  ClassConfig config = read({{"rope_traditional", false}}, "llama");
  Json patch;
  for (const ClassKey& key : type.keys) {
    if (!key.fallback) {
      patch[key.name] = 1;
    }
  }
  check_reads(config, type, {}, patch, "config.json");
}

TEST(ClassConfig, DefaultsAreTheClassesAndNotPatched) {
  const auto config = read({{"hidden_size", 8}}, "mixtral");
  EXPECT_EQ(config.values.at("rope_theta"), 1e6);
  EXPECT_EQ(config.values.at("num_local_experts"), 8);
  EXPECT_TRUE(config.patch.empty());
  EXPECT_TRUE(config.notes.empty());
}

TEST(ClassConfig, RopeParametersOfAClassThatDoesNotReadThem) {
  const Json parameters = {
      {"rope_theta", 5e5},
      {"rope_type", "yarn"},
      {"factor", 4.0},
      {"partial_rotary_factor", 0.5}};
  auto config = read({{"rope_parameters", parameters}}, "llama");
  EXPECT_EQ(config.patch.at("rope_theta"), 5e5);
  EXPECT_EQ(config.patch.at("rope_scaling").at("factor"), 4.0);
  EXPECT_EQ(config.patch.at("rope_scaling").at("type"), "yarn");
  EXPECT_FALSE(config.patch.at("rope_scaling").contains("rope_theta"));
  EXPECT_NE(all_notes(config).find("partial_rotary_factor"), std::string::npos);
  // What stands at the top is what the class reads.
  config = read(
      {{"rope_parameters", parameters}, {"rope_theta", 7e3}}, "qwen3_next");
  EXPECT_EQ(config.values.at("rope_theta"), 7e3);
  EXPECT_NE(all_notes(config).find("rope_theta 7000"), std::string::npos);
  EXPECT_EQ(config.patch.at("partial_rotary_factor"), 0.5);
  // A class that scales nothing.
  config = read({{"rope_parameters", parameters}}, "glm4");
  EXPECT_FALSE(config.patch.contains("rope_scaling"));
  EXPECT_NE(all_notes(config).find("rope_scaling"), std::string::npos);
}

TEST(ClassConfig, RopeParametersByLayerType) {
  const auto config = read(
      {{"rope_parameters",
        {{"full_attention",
          {{"rope_type", "linear"}, {"rope_theta", 1e6}, {"factor", 8.0}}},
         {"sliding_attention",
          {{"rope_type", "default"}, {"rope_theta", 2e4}}}}}},
      "gemma3_text");
  EXPECT_EQ(config.patch.at("rope_theta"), 1e6);
  EXPECT_EQ(config.patch.at("rope_local_base_freq"), 2e4);
  EXPECT_EQ(config.patch.at("rope_scaling").at("factor"), 8.0);
}

TEST(ClassConfig, RopeParametersOfClassesThatReadThem) {
  const Json parameters = {{"rope_theta", 5e5}, {"rope_type", "default"}};
  auto config = read({{"rope_parameters", parameters}}, "qwen3");
  EXPECT_EQ(config.values.at("rope_theta"), 5e5);
  EXPECT_FALSE(config.patch.contains("rope_theta"));
  // One that reads nothing else is given the older spelling as the newer.
  config = read(
      {{"rope_theta", 5e5}, {"partial_rotary_factor", 0.5}},
      "qwen3_5.TextModelArgs");
  EXPECT_EQ(config.patch.at("rope_parameters").at("rope_theta"), 5e5);
  EXPECT_EQ(
      config.patch.at("rope_parameters").at("partial_rotary_factor"), 0.5);
}

TEST(ClassConfig, Phi3LooksAtTypeAlone) {
  const Json factors = {1.0, 2.0};
  auto config = read(
      {{"rope_scaling",
        {{"rope_type", "longrope"},
         {"short_factor", factors},
         {"long_factor", factors}}}},
      "phi3");
  EXPECT_EQ(config.patch.at("rope_scaling").at("type"), "longrope");
  config = read(
      {{"rope_parameters",
        {{"rope_type", "longrope"},
         {"rope_theta", 1e4},
         {"original_max_position_embeddings", 64},
         {"short_factor", factors},
         {"long_factor", factors}}}},
      "phi3");
  EXPECT_EQ(config.patch.at("original_max_position_embeddings"), 64);
  EXPECT_EQ(config.patch.at("rope_scaling").at("type"), "longrope");
}

TEST(ClassConfig, PatternsAreReadFromLayerTypes) {
  const char* s = "sliding_attention";
  const char* f = "full_attention";
  auto config = read({{"layer_types", {s, s, f, s, s, f}}}, "gemma3_text");
  EXPECT_EQ(config.patch.at("sliding_window_pattern"), 3);
  EXPECT_TRUE(config.notes.empty());
  config = read(
      {{"layer_types", {s, s, f}}, {"_sliding_window_pattern", 3}}, "cohere2");
  EXPECT_EQ(config.patch.at("sliding_window_pattern"), 3);
  // The class reads the pattern, whatever the list says.
  // Without any pattern it stays the class's.
  config = read({{"layer_types", {f, s, s, f}}}, "gemma3_text");
  EXPECT_EQ(config.values.at("sliding_window_pattern"), 6);
  EXPECT_FALSE(config.patch.contains("sliding_window_pattern"));
  EXPECT_NE(all_notes(config).find("layer_types"), std::string::npos);
  config = read(
      {{"layer_types", {s, f, s, f}}, {"sliding_window_pattern", 4}},
      "gemma3_text");
  EXPECT_EQ(config.values.at("sliding_window_pattern"), 4);
  EXPECT_NE(all_notes(config).find("layer_types"), std::string::npos);
  config =
      read({{"layer_types", {"linear_attention", f}}}, "qwen3_5.TextModelArgs");
  EXPECT_EQ(config.patch.at("full_attention_interval"), 2);
}

TEST(ClassConfig, IntegersAreWrittenAsIntegers) {
  const auto config = read(
      {{"hidden_size", 256.0}, {"rope_theta", 1e6}, {"head_dim", 32}}, "llama");
  EXPECT_TRUE(config.patch.at("hidden_size").is_number_integer());
  EXPECT_EQ(config.patch.at("hidden_size"), 256);
  EXPECT_FALSE(config.patch.contains("rope_theta"));
  EXPECT_FALSE(config.patch.contains("head_dim"));
}

TEST(ClassConfig, NamesOfExpertsAndNeutralValues) {
  const auto config = read({{"num_local_experts", 8}}, "qwen3_moe");
  EXPECT_EQ(config.patch.at("num_experts"), 8);
  EXPECT_EQ(config.patch.at("mlp_only_layers"), Json::array());
  EXPECT_EQ(config.patch.at("decoder_sparse_step"), 1);
}

TEST(ClassConfig, NotesWhatTransformersWouldComputeOtherwise) {
  const auto notes = [](const Json& config) {
    const auto found = read(config, "llama");
    return all_notes(found) + found.window_note;
  };
  EXPECT_EQ(notes({{"router_aux_loss_coef", 0.1}, {"full_attn_mod", 1}}), "");
  EXPECT_EQ(notes({{"logit_scale", 1.0}, {"attn_logit_softcapping", {}}}), "");
  EXPECT_NE(
      notes({{"attn_logit_softcapping", 50.0}}).find("attn_logit_softcapping"),
      std::string::npos);
  EXPECT_NE(notes({{"clip_qkv", 8.0}}).find("clip_qkv"), std::string::npos);
  EXPECT_NE(
      notes({{"sliding_window", 64}}).find("sliding_window"),
      std::string::npos);
  EXPECT_EQ(notes({{"sliding_window", 64}, {"use_sliding_window", false}}), "");
}

TEST(ClassConfig, NullsAreWhatTheClassMakesOfThem) {
  auto config = read(
      {{"norm_topk_prob", {}}, {"n_group", {}}, {"rope_scaling", {}}},
      "deepseek_v3");
  EXPECT_EQ(config.patch.at("norm_topk_prob"), false);
  EXPECT_EQ(config.patch.at("n_group"), 1);
  EXPECT_FALSE(config.patch.contains("rope_scaling"));
  config = read(
      {{"head_dim", {}}, {"hidden_size", 96}, {"num_attention_heads", 3}},
      "qwen3");
  EXPECT_EQ(config.patch.at("head_dim"), 32);
  // Null by itself there, as is a tie, which the tensors decide.
  config = read({{"head_dim", {}}, {"tie_word_embeddings", {}}}, "llama");
  EXPECT_TRUE(config.patch.empty());
}

TEST(ClassKeys, OtherNamesOfAFamily) {
  EXPECT_EQ(without_alias("kimi_k2"), "deepseek_v3");
  EXPECT_EQ(without_alias("llama"), "llama");
  EXPECT_EQ(without_alias("xverse"), "llama");
}

}  // namespace
}  // namespace pennyweight
