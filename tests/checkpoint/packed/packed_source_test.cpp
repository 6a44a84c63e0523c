#include "checkpoint/packed/packed_source.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <cmath>

#include "support/expect_error.h"

namespace pennyweight {
namespace {

using testing::expect_error;

// Tensors in memory, and how often each has been asked for.
class Stored {
 public:
  void put(
      const std::string& name,
      const mx::array& value,
      ByteType byte_type = ByteType::plain) {
    auto whole = mx::contiguous(value);
    mx::eval(whole);
    arrays_.insert_or_assign(name, whole);
    infos_.insert_or_assign(
        name,
        TensorInfo{
            name,
            whole.dtype(),
            whole.shape(),
            whole.nbytes(),
            "model.safetensors",
            byte_type});
  }
  void erase(const std::string& name) {
    infos_.erase(name);
  }
  LoadStored load() {
    return [this](const std::string& name) {
      ++loads[name];
      return arrays_.at(name);
    };
  }
  std::unique_ptr<PackedSource> find(const Json& entry) {
    QuantizationEntries entries;
    entries.foreign = entry;
    entries.method = entry.is_null() ? "" : entry.value("quant_method", "");
    entries.foreign_place = "config.json: quantization_config";
    return PackedSource::find(
        entries,
        {infos_,
         load(),
         [](const std::string&) { return std::string(); },
         "folder"});
  }

  std::map<std::string, int> loads;

 private:
  std::map<std::string, TensorInfo> infos_;
  std::map<std::string, mx::array> arrays_;
};

std::vector<float> values(const mx::array& array) {
  auto wide = mx::contiguous(mx::flatten(mx::astype(array, mx::float32)));
  mx::eval(wide);
  return {wide.data<float>(), wide.data<float>() + wide.size()};
}

mx::array random_bytes(mx::Shape shape, int top = 127) {
  return mx::astype(mx::random::randint(0, top, std::move(shape)), mx::uint8);
}

Json fp8(int64_t rows, int64_t columns) {
  return {{"quant_method", "fp8"}, {"weight_block_size", {rows, columns}}};
}

// [matrices, 6, 8] in blocks of 4 x 4, whose last rows are of half a block.
Stored fp8_stack(int matrices) {
  Stored stored;
  stored.put("experts.up", random_bytes({matrices, 6, 8}, 120), ByteType::e4m3);
  stored.put(
      "experts.up_scale_inv",
      mx::random::uniform(0.5f, 2.0f, {matrices, 2, 2}));
  return stored;
}

TEST(PackedSource, BytesMeanWhatMlxTakesThemFor) {
  std::vector<uint8_t> bytes(256);
  for (int i = 0; i < 256; ++i) {
    bytes[size_t(i)] = uint8_t(i);
  }
  const auto theirs =
      values(mx::from_fp8(mx::array(bytes.data(), {256}), mx::float32));
  for (size_t i = 0; i < 256; ++i) {
    if ((i & 127) == 127) {
      EXPECT_TRUE(std::isnan(e4m3_values()[i]));
    } else {
      EXPECT_EQ(e4m3_values()[i], theirs[i]) << i;
    }
  }
  EXPECT_EQ(from_e8m0(127), 1.0f);
  EXPECT_EQ(from_e8m0(120), std::ldexp(1.0f, -7));
  EXPECT_EQ(from_e8m0(0), std::ldexp(1.0f, -127));
  EXPECT_TRUE(std::isnan(from_e8m0(255)));
}

TEST(PackedSource, AStacksMatrixIsExpandedAlone) {
  auto stored = fp8_stack(5);
  const auto source = stored.find(fp8(4, 4));
  ASSERT_TRUE(source);
  const auto* tensor = source->tensor("experts.up");
  ASSERT_TRUE(tensor);
  EXPECT_TRUE(stored.loads.empty()) << "nothing is read before it is asked for";
  EXPECT_EQ(tensor->info().shape, (mx::Shape{5, 6, 8}));
  EXPECT_EQ(tensor->info().bytes, 5u * 6 * 8 * 2);
  const auto all = tensor->expand(stored.load(), 0, 5);
  EXPECT_EQ(all.dtype(), mx::bfloat16);
  const auto one = tensor->expand(stored.load(), 3, 1);
  EXPECT_EQ(one.shape(), (mx::Shape{1, 6, 8}));
  EXPECT_EQ(values(one), values(mx::slice(all, {3, 0, 0}, {4, 6, 8})));
}

TEST(PackedSource, BlocksAtTheEdgeHaveTheirOwnScale) {
  Stored stored;
  const uint8_t one = 0x38;
  stored.put(
      "w.weight", mx::full({6, 8}, mx::array(one, mx::uint8)), ByteType::e4m3);
  stored.put(
      "w.weight_scale_inv", mx::array({1, 2, 3, 4}, {2, 2}, mx::float32));
  const auto source = stored.find(fp8(4, 4));
  const auto all =
      values(source->tensor("w.weight")->expand(stored.load(), 0, 6));
  EXPECT_EQ(all[0], 1);
  EXPECT_EQ(all[4], 2);
  EXPECT_EQ(all[4 * 8], 3);
  EXPECT_EQ(all[5 * 8 + 7], 4);
}

TEST(PackedSource, CodesOfThreeBitsCrossWords) {
  // 32 inputs, one output: codes 0..7 in turn, as one stream of bits.
  std::vector<uint32_t> words(3 * 32, 0);
  for (uint32_t i = 0; i < 32; ++i) {
    for (uint32_t bit = 0; bit < 3; ++bit) {
      const uint32_t at = 3 * i + bit;
      for (size_t out = 0; out < 32; ++out) {
        words[at / 32 * 32 + out] |= ((i % 8) >> bit & 1u) << (at % 32);
      }
    }
  }
  Stored stored;
  stored.put("w.qweight", mx::array(words.data(), {3, 32}, mx::uint32));
  stored.put("w.qzeros", mx::zeros({1, 3}, mx::int32));
  stored.put("w.scales", mx::full({1, 32}, 0.5f, mx::float16));
  Json entry{{"quant_method", "gptq"}, {"bits", 3}, {"group_size", 32}};
  const auto source = stored.find(entry);
  const auto* tensor = source->tensor("w.weight");
  EXPECT_EQ(tensor->info().dtype, mx::float16);
  const auto row = values(tensor->expand(stored.load(), 7, 1));
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(row[i], 0.5f * (float(i % 8) - 1)) << i;  // zeros less one
  }
  entry["checkpoint_format"] = "gptq_v2";
  const auto second = stored.find(entry);
  EXPECT_EQ(
      values(second->tensor("w.weight")->expand(stored.load(), 0, 1))[3], 1.5f);
}

TEST(PackedSource, OnlyPackedTensorsMakeOne) {
  Stored stored;
  stored.put("w.weight", mx::zeros({4, 4}));
  EXPECT_FALSE(stored.find({{"quant_method", "gptq"}, {"bits", 4}}));
  EXPECT_FALSE(stored.find(Json()));
  auto stack = fp8_stack(1);
  EXPECT_FALSE(stack.find({{"quant_method", "hqq"}}));
}

TEST(PackedSource, WhatBelongsToTheMatricesIsTaken) {
  auto stored = fp8_stack(2);
  stored.put("norm.weight", mx::ones({8}));
  stored.put("attention.k_scale", mx::ones({1}));
  const auto source = stored.find(fp8(4, 4));
  EXPECT_EQ(
      source->taken(),
      (std::set<std::string>{
          "attention.k_scale", "experts.up", "experts.up_scale_inv"}));
  const auto figures = source->json();
  EXPECT_EQ(figures["dropped"], 1);
  EXPECT_EQ(figures["stored_bytes"], 2 * (48 + 4 * 4));
  EXPECT_EQ(figures["expanded_bytes"], 2 * 48 * 2);
  EXPECT_NE(
      source->describe().find("FP8 in blocks of 4 x 4"), std::string::npos);
}

TEST(PackedSource, WhatIsNoMatrixIsNamed) {
  const auto refused = [](const mx::Shape& shape) {
    Stored stored;
    stored.put("w.weight", mx::zeros(shape, mx::uint8), ByteType::e4m3);
    stored.put("w.weight_scale_inv", mx::ones({1, 1}));
    expect_error(ErrorCode::corrupt, "w.weight has shape", [&] {
      stored.find(fp8(4, 4));
    });
  };
  refused({0, 4});
  refused({4, 0});
  refused({4});
  refused({1, 2, 3, 4});
  Stored words;
  words.put("w.qweight", mx::zeros({0, 8}, mx::int32));
  words.put("w.qzeros", mx::zeros({1, 1}, mx::int32));
  words.put("w.scales", mx::ones({1, 8}, mx::float16));
  const Json entry{{"quant_method", "gptq"}, {"bits", 4}};
  expect_error(ErrorCode::corrupt, "w.qweight", [&] { words.find(entry); });
  words.put("w.qweight", mx::zeros({4, 8}, mx::int32));
  EXPECT_TRUE(words.find(entry));
  words.put("w.scales", mx::ones({1, 8}, mx::uint8));
  expect_error(ErrorCode::corrupt, "w.scales", [&] { words.find(entry); });
}

TEST(PackedSource, LeftOversAreNamed) {
  auto stored = fp8_stack(2);
  stored.put("other.qzeros", mx::zeros({2, 2}, mx::int32));
  expect_error(
      ErrorCode::corrupt, "other.qzeros", [&] { stored.find(fp8(4, 4)); });
  stored.erase("other.qzeros");
  expect_error(
      ErrorCode::corrupt, "experts.up_scale_inv has shape [2, 2, 2]", [&] {
        stored.find(fp8(2, 4));
      });
}

}  // namespace
}  // namespace pennyweight
