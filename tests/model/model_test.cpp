#include "model/model.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

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
  EXPECT_EQ(tiny.model.spec.notes.size(), 1u);
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

TEST(Model, ForeignQuantizationIsNotSupported) {
  auto config = tiny_config();
  config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
  expect_error(ErrorCode::not_supported, "gptq", [&] {
    open_with(config, random_tensors(config));
  });
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
