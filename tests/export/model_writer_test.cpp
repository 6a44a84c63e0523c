#include "export/model_writer.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/json.h"

namespace pennyweight {
namespace {

mx::array evaluated(mx::array array) {
  array = mx::contiguous(array);
  mx::eval(array);
  return array;
}

class WriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  fs::path folder_;
};

TEST_F(WriterTest, WhatIsWrittenIsReadByUsAndByMlx) {
  auto a = mx::astype(mx::random::normal({3, 5}), mx::bfloat16);
  auto b = mx::astype(mx::arange(0, 7, 1), mx::uint32);
  std::vector<TensorPlan> plan{
      {"a", mx::bfloat16, {3, 5}}, {"b", mx::uint32, {7}}};
  ModelWriter writer(folder_, plan);
  mx::eval(a, b);
  EXPECT_THROW(writer.write("a", mx::add(a, a)), Error) << "not evaluated";
  writer.write("a", a);
  writer.write("b", b);
  writer.finish(22);
  EXPECT_EQ(writer.total_bytes(), 30u + 28u);
  write_file(folder_ / "config.json", "{}");
  auto checkpoint = Checkpoint::open(folder_);
  EXPECT_TRUE(mx::array_equal(checkpoint.load("a"), a).item<bool>());
  auto [tensors, metadata] =
      mx::load_safetensors((folder_ / "model.safetensors").string());
  EXPECT_TRUE(mx::array_equal(tensors.at("b"), b).item<bool>());
  EXPECT_EQ(metadata.at("format"), "mlx");
  auto index = read_json(folder_ / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 58);
  EXPECT_EQ(index["metadata"]["total_parameters"], 22);
}

TEST_F(WriterTest, ATensorMayComeByRows) {
  auto a = mx::astype(mx::random::normal({5, 3}), mx::bfloat16);
  const auto rows = [&](int first, int end) {
    auto part = mx::contiguous(mx::slice(a, {first, 0}, {end, 3}));
    mx::eval(part);
    return part;
  };
  ModelWriter writer(folder_, {{"a", mx::bfloat16, {5, 3}}});
  EXPECT_THROW(writer.append(rows(0, 2)), Error) << "nothing was begun";
  writer.begin("a");
  EXPECT_THROW(writer.begin("a"), Error) << "it is not whole yet";
  writer.append(rows(0, 2));
  EXPECT_THROW(writer.append(rows(0, 4)), Error) << "more than there are";
  writer.append(rows(2, 5));
  writer.finish(15);
  write_file(folder_ / "config.json", "{}");
  const auto checkpoint = Checkpoint::open(folder_);
  EXPECT_TRUE(mx::array_equal(checkpoint.load("a"), a).item<bool>());
  EXPECT_TRUE(mx::array_equal(
                  checkpoint.load_rows("a", 1, 3), mx::slice(a, {1, 0}, {4, 3}))
                  .item<bool>());
  EXPECT_THROW(checkpoint.load_rows("a", 3, 3), Error);
}

TEST_F(WriterTest, SplitsAtTheLimitAndIndexesTheShards) {
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 5; ++i) {
    plan.push_back({"t" + std::to_string(i), mx::float32, {16}});
  }
  ModelWriter writer(folder_, plan, 128);
  for (int i = 0; i < 5; ++i) {
    writer.write(
        "t" + std::to_string(i),
        evaluated(mx::full({16}, static_cast<float>(i))));
  }
  writer.finish(80);
  write_file(folder_ / "config.json", "{}");
  auto checkpoint = Checkpoint::open(folder_);
  EXPECT_EQ(
      checkpoint.info("t4").file.filename(),
      "model-00003-of-00003.safetensors");
  EXPECT_EQ(mx::max(checkpoint.load("t3")).item<float>(), 3.0f);
}

TEST_F(WriterTest, TensorsMayComeInAnyOrder) {
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 5; ++i) {
    plan.push_back({"t" + std::to_string(i), mx::float32, {4, 4}});
  }
  const auto bytes_of = [&](const std::vector<int>& order) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    ModelWriter writer(folder_, plan, 128);
    for (const int i : order) {
      const auto rows = evaluated(mx::full({2, 4}, static_cast<float>(i)));
      writer.begin("t" + std::to_string(i));
      writer.append(rows);
      writer.append(rows);
    }
    writer.finish(80);
    std::string all;
    for (const char* name :
         {"model-00001-of-00003.safetensors",
          "model-00002-of-00003.safetensors",
          "model-00003-of-00003.safetensors",
          "model.safetensors.index.json"}) {
      all += read_file(folder_ / name, 1 << 20);
    }
    return all;
  };
  const auto straight = bytes_of({0, 1, 2, 3, 4});
  EXPECT_EQ(bytes_of({4, 3, 2, 1, 0}), straight);
  EXPECT_EQ(bytes_of({2, 0, 4, 3, 1}), straight);
  ModelWriter writer(folder_, plan, 128);
  writer.write("t3", evaluated(mx::zeros({4, 4})));
  EXPECT_THROW(writer.write("t3", evaluated(mx::zeros({4, 4}))), Error)
      << "twice";
}

TEST_F(WriterTest, ATensorLargerThanTheLimitHasAShardOfItsOwn) {
  ModelWriter writer(
      folder_, {{"a", mx::float32, {64}}, {"b", mx::float32, {1}}}, 16);
  writer.write("a", evaluated(mx::zeros({64})));
  writer.write("b", evaluated(mx::zeros({1})));
  writer.finish(65);
  EXPECT_TRUE(fs::exists(folder_ / "model-00002-of-00002.safetensors"));
}

TEST_F(WriterTest, RefusesWhatWasNotPlanned) {
  ModelWriter writer(folder_, {{"a", mx::float32, {4}}});
  EXPECT_THROW(writer.write("b", mx::zeros({4})), Error);
  EXPECT_THROW(writer.write("a", mx::zeros({5})), Error);
  EXPECT_THROW(writer.write("a", mx::zeros({4}, mx::bfloat16)), Error);
  EXPECT_THROW(writer.finish(4), Error);
}

TEST(OutputConfig, HoldsQuantizationTwiceOrNotAtAll) {
  Json config = {{"model_type", "llama"}, {"_name_or_path", "/home/x"}};
  Json quantization = {{"bits", 4}};
  auto json = output_config(config, quantization);
  EXPECT_EQ(json["quantization"], quantization);
  EXPECT_EQ(json["quantization_config"], quantization);
  EXPECT_FALSE(json.contains("_name_or_path"));
  EXPECT_FALSE(output_config(json, nullptr).contains("quantization"));
  json["compression_config"] = {{"quant_method", "compressed-tensors"}};
  json["text_config"] = {{"quantization_config", quantization}, {"x", 1}};
  json = output_config(json, nullptr);
  EXPECT_EQ(json["text_config"], (Json{{"x", 1}}));
  EXPECT_FALSE(json.contains("compression_config"));
}

}  // namespace
}  // namespace pennyweight
