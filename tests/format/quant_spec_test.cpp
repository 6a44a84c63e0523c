#include "format/quant_spec.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "format/quant_plan.h"

namespace pennyweight {
namespace {

TEST(QuantSpec, TakesMlxsDefaultsAndRefusesWhatMlxLacks) {
  EXPECT_EQ(make_quant_spec("affine", {}, {}), (QuantSpec{"affine", 4, 64}));
  EXPECT_EQ(make_quant_spec("nvfp4", {}, {}), (QuantSpec{"nvfp4", 4, 16}));
  EXPECT_EQ(make_quant_spec("mxfp8", 8, {}), (QuantSpec{"mxfp8", 8, 32}));
  EXPECT_THROW(make_quant_spec("affine", 7, {}), Error);
  EXPECT_THROW(make_quant_spec("affine", 4, 48), Error);
  EXPECT_THROW(make_quant_spec("mxfp4", 8, {}), Error);
  EXPECT_THROW(make_quant_spec("gguf", {}, {}), Error);
}

TEST(QuantSpec, GoesThroughJson) {
  auto json = to_json(QuantSpec{"affine", 3, 128});
  EXPECT_EQ(
      quant_spec_from_json(JsonView(json, "c")), (QuantSpec{"affine", 3, 128}));
  // As mlx-lm's rwkv7 has it written.
  json = Json{{"bits", 8}};
  EXPECT_EQ(
      quant_spec_from_json(JsonView(json, "c")), (QuantSpec{"affine", 8, 64}));
  json["bits"] = 7;
  try {
    quant_spec_from_json(JsonView(json, "c"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
  }
}

TEST(QuantPlan, KeepsWhatDoesNotFitAndSaysWhy) {
  auto plan = make_plan(
      {{"model.layers.0.mlp.up_proj", 64},
       {"model.layers.0.mlp.down_proj", 172}},
      {"affine", 4, 64},
      "",
      1);
  EXPECT_TRUE(plan.at("model.layers.0.mlp.up_proj").spec);
  const auto& kept = plan.at("model.layers.0.mlp.down_proj");
  EXPECT_FALSE(kept.spec);
  EXPECT_NE(kept.reason.find("172"), std::string::npos);
  auto json = to_json(plan);
  EXPECT_EQ(json["bits"], 4);
  EXPECT_EQ(json["model.layers.0.mlp.down_proj"], false);
  EXPECT_FALSE(json.contains("model.layers.0.mlp.up_proj"));
  EXPECT_THROW(plan.at("model.norm"), Error);
}

TEST(QuantPlan, WhatTheClassAsksForWantsTheCommonGroups) {
  const QuantSpec router{"affine", 8, 64};
  std::vector<PlannedModule> modules{
      {.path = "gate", .in = 64, .own = router},
      {.path = "wide", .in = 128, .own = router},
      {.path = "left", .in = 128, .own_kept = true}};
  // As mlx_lm.convert, which asks its class only of what they divide.
  auto plan = make_plan(modules, {"affine", 4, 128}, "", 1);
  EXPECT_NE(plan.at("gate").reason.find("128"), std::string::npos);
  EXPECT_EQ(plan.at("wide").spec, router);
  EXPECT_EQ(plan.at("left").reason, kClassKeeps);
  plan = make_plan(modules, {"affine", 4, 32}, "", 1);
  EXPECT_EQ(plan.at("gate").spec, router);
  plan = make_plan(modules, {"affine", 4, 32}, "mixed_3_6", 1);
  EXPECT_EQ(plan.at("left").spec->bits, 3);
}

TEST(QuantPlan, RecipesFollowMlxLm) {
  std::vector<PlannedModule> modules{
      {"model.embed_tokens", 64}, {"lm_head", 64}};
  for (int i = 0; i < 16; ++i) {
    auto block = "model.layers." + std::to_string(i);
    modules.push_back({block + ".self_attn.v_proj", 64});
    modules.push_back({block + ".self_attn.q_proj", 64});
  }
  auto plan = make_plan(modules, {"affine", 4, 64}, "mixed_3_6", 16);
  auto bits = [&](const std::string& path) { return plan.at(path).spec->bits; };
  EXPECT_EQ(bits("lm_head"), 6);
  EXPECT_EQ(bits("model.embed_tokens"), 3);
  // First and last eighth (0, 1, 14, 15), and every third from block 4 on.
  for (int i = 0; i < 16; ++i) {
    bool more = i < 2 || i >= 14 || (i >= 2 && (i - 2) % 3 == 2);
    auto block = "model.layers." + std::to_string(i);
    EXPECT_EQ(bits(block + ".self_attn.v_proj"), more ? 6 : 3) << i;
    EXPECT_EQ(bits(block + ".self_attn.q_proj"), 3) << i;
  }
  EXPECT_THROW(make_plan(modules, {"affine", 4, 64}, "mixed_1_9", 16), Error);
}

}  // namespace
}  // namespace pennyweight
