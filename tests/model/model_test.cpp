#include "model/model.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "core/json.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::random_tensors;
using testing::TemporaryFolder;
using testing::Tensors;
using testing::tiny_config;
using testing::TinyModel;

void open_with(const Json& config, const Tensors& tensors) {
  TinyModel tiny(config, tensors);
}

void expect_refused(
    const std::string& part,
    const std::function<void(Tensors&)>& damage,
    const Json& config = tiny_config()) {
  auto tensors = random_tensors(config);
  damage(tensors);
  expect_error(ErrorCode::corrupt, part, [&] { open_with(config, tensors); });
}

TEST(Model, EveryTensorIsClaimed) {
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
    TinyModel tiny(tiny_config(family));
    EXPECT_EQ(tiny.model.dtype, mx::float32);
    auto size = model_size(tiny.model);
    int64_t parameters = 0;
    for (const auto& [name, info] : tiny.model.checkpoint.tensors()) {
      parameters += static_cast<int64_t>(info.bytes) / 4;
    }
    EXPECT_EQ(size.parameters, parameters);
    EXPECT_EQ(size.bytes, parameters * 4);
    EXPECT_DOUBLE_EQ(size.bits_per_weight, 32);
  }
}

TEST(Model, UnclaimedMissingAndWrongTensorsAreNamed) {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  expect_refused("model.layers.0.self_attn.extra", [](Tensors& tensors) {
    tensors.insert_or_assign("model.layers.0.self_attn.extra", mx::zeros({3}));
  });
  expect_refused("lm_head.weight_scale", [](Tensors& tensors) {
    tensors.insert_or_assign("lm_head.weight_scale", mx::zeros({3}));
  });
  expect_refused(q, [&](Tensors& tensors) { tensors.erase(q); });
  expect_refused(q, [&](Tensors& tensors) {
    tensors.insert_or_assign(q, mx::zeros({32, 31}));
  });
  expect_refused(q, [&](Tensors& tensors) {
    tensors.insert_or_assign(q, mx::zeros({32, 32}, mx::int32));
  });
  expect_refused("model.norm.weight", [](Tensors& tensors) {
    tensors.insert_or_assign("model.norm.weight", mx::zeros({31}));
  });
  expect_refused(
      "q_proj.bias",
      [](Tensors& tensors) {
        tensors.erase("model.layers.0.self_attn.q_proj.bias");
      },
      tiny_config("qwen2"));
}

TEST(Model, DroppedTensorsAreNotPartOfTheModel) {
  auto tensors = random_tensors(tiny_config());
  tensors.insert_or_assign("lm_head.weight", mx::zeros({61, 32}));
  tensors.insert_or_assign(
      "model.layers.0.self_attn.rotary_emb.inv_freq", mx::zeros({4}));
  TinyModel tiny(tiny_config(), tensors);
  TinyModel plain(tiny_config());
  EXPECT_EQ(model_size(tiny.model).bytes, model_size(plain.model).bytes);
  // Of the head, that it is another matrix than the embedding, and the rest.
  EXPECT_EQ(tiny.model.spec.notes.size(), 3u);
}

struct Packed {
  Json config = tiny_config();
  Tensors tensors = random_tensors(config);
  std::string path = "model.layers.0.mlp.up_proj";

  Packed() {
    config["quantization"] = {{"group_size", 32}, {"bits", 4}};
    auto parts = mx::quantize(tensors.at(path + ".weight"), 32, 4);
    tensors.insert_or_assign(path + ".weight", parts[0]);
    tensors.insert_or_assign(path + ".scales", parts[1]);
    tensors.insert_or_assign(path + ".biases", parts[2]);
  }
};

TEST(Model, PackedModulesAreRecognized) {
  Packed packed;
  TinyModel tiny(packed.config, packed.tensors);
  ASSERT_EQ(tiny.model.quantized.size(), 1u);
  EXPECT_EQ(tiny.model.quantized.at(packed.path), (QuantSpec{"affine", 4, 32}));
  auto size = module_size(tiny.model, packed.path);
  EXPECT_EQ(size.parameters, 48 * 32);
  EXPECT_EQ(size.bytes, 48 * 32 / 2 + 2 * 48 * 4);
  EXPECT_LT(model_size(tiny.model).bits_per_weight, 32);
}

TEST(Model, ShapesOutrankTheCommonEntry) {
  Packed packed;
  packed.config["quantization"]["bits"] = 8;
  TinyModel tiny(packed.config, packed.tensors);
  EXPECT_EQ(tiny.model.quantized.at(packed.path).bits, 4);
  // An entry of the module's own that does not fit is refused.
  packed.config["quantization"][packed.path] = {
      {"group_size", 32}, {"bits", 8}};
  expect_error(ErrorCode::corrupt, packed.path, [&] {
    open_with(packed.config, packed.tensors);
  });
}

TEST(Model, DamagedPackedModulesAreNamed) {
  Packed packed;
  auto damaged = [&](const std::string& suffix, const mx::array& value) {
    auto tensors = packed.tensors;
    tensors.insert_or_assign(packed.path + suffix, value);
    expect_error(ErrorCode::corrupt, packed.path, [&] {
      open_with(packed.config, tensors);
    });
  };
  damaged(".weight", mx::zeros({48, 7}, mx::uint32));
  damaged(".weight", mx::zeros({48, 4}, mx::int32));
  damaged(".scales", mx::zeros({48, 0}));
  damaged(".scales", mx::zeros({48, 7}));
  damaged(".biases", mx::zeros({47, 1}));
  damaged(".scales", mx::zeros({48, 1}, mx::int32));
  auto tensors = packed.tensors;
  tensors.erase(packed.path + ".biases");
  expect_error(ErrorCode::corrupt, packed.path, [&] {
    open_with(packed.config, tensors);
  });
}

// https://github.com/sgl-project/sglang/pull/23841 and
// https://github.com/alibaba/Pai-Megatron-Patch/issues/644
TEST(Model, AnEntryOverPlainWeightsIsDroppedWithANote) {
  const Json entries[] = {
      {{"quantization_config", {{"quant_method", "gptq"}, {"bits", 4}}}},
      {{"quantization_config", {{"quant_method", "fp8"}}}},
      {{"quantization_config", {{"quant_method", "mxfp4"}}}},
      {{"quantization_config", {{"load_in_4bit", true}}}},
      {{"quantization_config", Json::object()}},
      {{"quantization_config", {{"quant_method", "compressed-tensors"}}}},
      {{"quantization", {{"group_size", 64}, {"bits", 4}}}},
      {{"quantization", {{"group_size", 64}, {"bits", 4}}},
       {"quantization_config", {{"quant_method", "awq"}}}},
  };
  for (const Json& entry : entries) {
    auto config = tiny_config();
    config.update(entry);
    TinyModel tiny(config, random_tensors(tiny_config()));
    EXPECT_TRUE(tiny.model.quantized.empty());
    EXPECT_FALSE(tiny.model.published_packed);
    ASSERT_EQ(tiny.model.spec.notes.size(), 1u) << entry;
    for (const auto& [key, value] : entry.items()) {
      EXPECT_NE(tiny.model.spec.notes[0].find(key), std::string::npos);
      EXPECT_FALSE(tiny.model.checkpoint.config().contains(key));
    }
  }
  auto config = tiny_config();
  config["quantization_config"] = nullptr;
  TinyModel tiny(config, random_tensors(tiny_config()));
  EXPECT_TRUE(tiny.model.spec.notes.empty()) << "null is as good as absent";
}

// Whatever the config says: https://github.com/ggml-org/llama.cpp/issues/12644
TEST(Model, WeightsThatAnotherQuantizerPackedAreNotSupported) {
  const std::string path = "model.layers.0.mlp.up_proj";
  const std::pair<const char*, const char*> cases[] = {
      {".qweight", "gptq"},
      {".weight_packed", "compressed-tensors"},
      {".weight_scale_inv", "fp8"},
      {".weight.absmax", "bitsandbytes"},
      {".SCB", "bitsandbytes"},
  };
  for (const auto& [suffix, method] : cases) {
    auto tensors = random_tensors(tiny_config());
    tensors.insert_or_assign(path + suffix, mx::zeros({4, 8}, mx::int32));
    expect_error(ErrorCode::not_supported, path + suffix, [&] {
      open_with(tiny_config(), tensors);
    });
    expect_error(ErrorCode::not_supported, method, [&] {
      open_with(tiny_config(), tensors);
    });
  }
  auto config = tiny_config();
  config["quantization_config"] = {{"quant_method", "hqq"}};
  auto tensors = random_tensors(tiny_config());
  tensors.insert_or_assign(path + ".weight", mx::zeros({48, 16}, mx::uint8));
  expect_error(
      ErrorCode::not_supported, "hqq", [&] { open_with(config, tensors); });
}

TEST(Model, PackedModulesWithoutAnEntryAreReadFromTheirShapes) {
  for (const bool foreign : {false, true}) {
    Packed packed;
    packed.config.erase("quantization");
    if (foreign) {
      packed.config["quantization_config"] = {{"quant_method", "gptq"}};
    }
    TinyModel tiny(packed.config, packed.tensors);
    EXPECT_EQ(
        tiny.model.quantized.at(packed.path), (QuantSpec{"affine", 4, 32}));
    ASSERT_EQ(tiny.model.spec.notes.size(), 1u);
    const auto& config = tiny.model.checkpoint.config();
    EXPECT_EQ(config.at("quantization").at("bits"), 4);
    EXPECT_EQ(config.at("quantization").at("group_size"), 32);
    EXPECT_FALSE(config.contains("quantization_config"));
  }
}

TEST(Model, AMissingFileIsNamedWithItsTensor) {
  auto tensors = random_tensors(tiny_config());
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  TemporaryFolder folder;
  tensors.erase(name);
  testing::write_checkpoint(folder.path(), tiny_config(), tensors);
  std::ofstream(folder.path() / "model.safetensors.index.json") << Json{
      {"weight_map",
       {{name, "model-00002-of-00002.safetensors"},
        {"model.norm.weight", "model.safetensors"}}}};
  for (const std::string& part : {name, std::string("00002-of-00002")}) {
    expect_error(
        ErrorCode::not_found, part, [&] { open_model(folder.path()); });
  }
}

TEST(Model, VectorsThatAreNotFiniteAreNamed) {
  for (const char* name :
       {"model.norm.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.bias"}) {
    const auto config = tiny_config("qwen2");
    auto tensors = random_tensors(config);
    auto value = mx::concatenate(
        {mx::array({NAN, INFINITY, NAN}),
         mx::slice(tensors.at(name), {3}, {32})});
    value.eval();
    tensors.insert_or_assign(name, value);
    expect_error(
        ErrorCode::numeric,
        std::string(name) + " holds 2 NaN values and 1 infinite value",
        [&] { open_with(config, tensors); });
  }
}

TEST(Model, UnknownFamilyIsNamed) {
  auto config = tiny_config();
  auto tensors = random_tensors(config);
  config["model_type"] = "mamba9";
  expect_error(
      ErrorCode::not_supported, "mamba9", [&] { open_with(config, tensors); });
}

}  // namespace
}  // namespace pennyweight
