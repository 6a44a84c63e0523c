#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"

namespace pennyweight {
namespace {

ErrorCode parse_code(const std::string& header, uint64_t data_bytes) {
  try {
    parse_safetensors_header(header, 8 + header.size() + data_bytes, "m.st");
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("m.st"), std::string::npos);
    return error.code();
  }
  ADD_FAILURE() << "accepted: " << header;
  return ErrorCode::cancelled;
}

std::string entry(const std::string& body) {
  return "{\"w\":{" + body + "}}";
}

TEST(SafetensorsHeader, ReadsInTheOrderOfOffsets) {
  std::string header =
      R"({"__metadata__":{"format":"pt"},)"
      R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("c":{"dtype":"U8","shape":[0],"data_offsets":[20,20]}}   )";
  auto entries = parse_safetensors_header(header, 8 + header.size() + 20, "m");
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[1].name, "b");
  EXPECT_EQ(entries[1].dtype, mx::bfloat16);
  EXPECT_EQ(entries[1].shape, (mx::Shape{2, 3}));
  EXPECT_EQ(entries[1].begin, 8 + header.size() + 8);
}

TEST(SafetensorsHeader, RefusesWhatBreaksTheFormat) {
  struct Case {
    const char* body;
    uint64_t bytes;
  };
  for (const Case& c : {
           Case{R"("shape":[2],"data_offsets":[0,8])", 8},
           Case{R"("dtype":"F31","shape":[2],"data_offsets":[0,8])", 8},
           Case{R"("dtype":7,"shape":[2],"data_offsets":[0,8])", 8},
           Case{R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", 8},
           Case{R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", 8},
           Case{R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", 8},
           Case{R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 4},
           Case{R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 9},
           Case{R"("dtype":"F32","shape":[2],"data_offsets":[4,12])", 12},
           Case{R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", 8},
           Case{R"("dtype":"F32","shape":[2],"data_offsets":[0])", 8},
           Case{R"("dtype":"F32","shape":[2],"data_offsets":"0,8")", 8},
           Case{
               R"("dtype":"U8","shape":[2147483647,2147483647,2147483647],)"
               R"("data_offsets":[0,8])",
               8},
           Case{R"("dtype":"U8","shape":[4294967296],"data_offsets":[0,8])", 8},
           Case{
               R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,8],)"
               R"("data_offsets":[0,8])",
               8},
           Case{
               R"("dtype":"U8","shape":[8],)"
               R"("data_offsets":[18446744073709551608,18446744073709551616])",
               8},
       }) {
    EXPECT_EQ(parse_code(entry(c.body), c.bytes), ErrorCode::corrupt) << c.body;
  }
  EXPECT_EQ(parse_code("[]", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"w\":3}", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"w\"", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("7", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"w\":[1]}", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"w\":null}", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"\":{}}", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"__metadata__\":{\"a\":1}}", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code("{\"__metadata__\":{\"a\":{}}}", 0), ErrorCode::corrupt);
  EXPECT_EQ(parse_code(std::string(1000000, '['), 0), ErrorCode::corrupt);
  std::string good = R"("dtype":"U8","shape":[8],"data_offsets":[0,8])";
  EXPECT_EQ(parse_code(entry(good + ",\"x\":1"), 8), ErrorCode::corrupt);
  EXPECT_EQ(parse_code(entry(good + ",\"shape\":[8]"), 8), ErrorCode::corrupt);
  EXPECT_EQ(parse_safetensors_header("{}", 10, "m.st").size(), 0u);
}

TEST(SafetensorsHeader, AHundredThousandTensorsTakeNoTime) {
  std::string header = "{";
  for (int i = 0; i < 100000; ++i) {
    auto at = std::to_string(i);
    auto next = std::to_string(i + 1);
    header +=
        (i ? ",\"model.layers.mlp.experts." : "\"model.layers.mlp.experts.") +
        at + R"(.down_proj":{"dtype":"U8","shape":[1],"data_offsets":[)" + at +
        "," + next + "]}";
  }
  header += "}";
  auto start = std::chrono::steady_clock::now();
  auto entries =
      parse_safetensors_header(header, 8 + header.size() + 100000, "m.st");
  EXPECT_EQ(entries.size(), 100000u);
  // Minutes where names are looked up one after the other.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(SafetensorsHeader, RefusesOverlapsAndRepeatedNames) {
  std::string a = R"("dtype":"U8","shape":[8],"data_offsets":[0,8])";
  std::string b = R"("dtype":"U8","shape":[8],"data_offsets":[4,12])";
  EXPECT_EQ(
      parse_code("{\"a\":{" + a + "},\"b\":{" + b + "}}", 12),
      ErrorCode::corrupt);
  EXPECT_EQ(
      parse_code("{\"a\":{" + a + "},\"a\":{" + a + "}}", 8),
      ErrorCode::corrupt);
}

TEST(SafetensorsHeader, NamesDtypesThatMlxLacks) {
  for (const char* dtype : {"F64", "F8_E5M2", "F4"}) {
    std::string body = std::string(R"("dtype":")") + dtype +
        R"(","shape":[1],"data_offsets":[0,8])";
    EXPECT_EQ(parse_code(entry(body), 8), ErrorCode::not_supported) << dtype;
  }
}

TEST(SafetensorsHeader, KeepsWhatBytesAre) {
  const std::pair<const char*, ByteType> types[] = {
      {"U8", ByteType::plain},
      {"F8_E4M3", ByteType::e4m3},
      {"F8_E8M0", ByteType::e8m0}};
  for (const auto& [dtype, type] : types) {
    const auto header = entry(
        std::string(R"("dtype":")") + dtype +
        R"(","shape":[2,4],"data_offsets":[0,8])");
    const auto entries =
        parse_safetensors_header(header, 8 + header.size() + 8, "m.st");
    ASSERT_EQ(entries.size(), 1u);
    EXPECT_EQ(entries[0].dtype, mx::uint8);
    EXPECT_EQ(entries[0].byte_type, type) << dtype;
  }
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    write_file(folder_ / "config.json", "{}");
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  void save(const std::string& file, const std::string& tensor) {
    mx::save_safetensors(
        (folder_ / file).string(), {{tensor, mx::full({4, 4}, 1.5f)}});
  }
  void index(const std::string& map) {
    write_file(
        folder_ / "model.safetensors.index.json",
        "{\"metadata\":{},\"weight_map\":" + map + "}");
  }
  ErrorCode open_code() {
    try {
      Checkpoint::open(folder_);
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << "opened";
    return ErrorCode::cancelled;
  }
  fs::path folder_;
};

TEST_F(CheckpointTest, LoadsEveryDtypeUnchangedAndOutlivesTheCheckpoint) {
  std::unordered_map<std::string, mx::array> tensors;
  for (mx::Dtype dtype :
       {mx::float32,
        mx::float16,
        mx::bfloat16,
        mx::uint8,
        mx::uint32,
        mx::int64,
        mx::bool_}) {
    auto name = "t" + safetensors_dtype_name(dtype);
    // An odd count, so that what follows is not aligned by chance.
    tensors.emplace(name, mx::astype(mx::arange(0, 13, 1), dtype));
  }
  mx::save_safetensors((folder_ / "model.safetensors").string(), tensors);
  std::map<std::string, mx::array> loaded;
  {
    auto checkpoint = Checkpoint::open(folder_);
    for (const auto& [name, info] : checkpoint.tensors()) {
      loaded.emplace(name, checkpoint.load(name));
      EXPECT_EQ(info.bytes, loaded.at(name).nbytes());
    }
  }
  ASSERT_EQ(loaded.size(), tensors.size());
  for (const auto& [name, value] : tensors) {
    EXPECT_EQ(loaded.at(name).dtype(), value.dtype());
    EXPECT_TRUE(mx::array_equal(loaded.at(name), value).item<bool>()) << name;
  }
}

TEST_F(CheckpointTest, ReadsShardsByTheIndex) {
  save("model-1.safetensors", "a");
  save("model-2.safetensors", "b");
  index(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  auto checkpoint = Checkpoint::open(folder_);
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.info("b").file.filename(), "model-2.safetensors");
  EXPECT_THROW(checkpoint.load("c"), Error);
}

TEST_F(CheckpointTest, RefusesAnIndexThatLeavesTheFolder) {
  save("model-1.safetensors", "a");
  for (const char* shard :
       {"../model-1.safetensors",
        "/etc/passwd",
        "x/../../m.safetensors",
        "..",
        "",
        "a\\\\b.safetensors"}) {
    index(std::string(R"({"a":")") + shard + "\"}");
    EXPECT_EQ(open_code(), ErrorCode::corrupt) << shard;
  }
}

TEST_F(CheckpointTest, FilesDecideAndNotTheIndex) {
  save("model-1.safetensors", "a");
  save("model-2.safetensors", "b");
  const std::pair<const char*, const char*> cases[] = {
      {R"({"a":"model-1.safetensors"})", "does not list b"},
      {R"({"a":"model-2.safetensors","b":"model-1.safetensors"})", "places a"},
      {R"({"a":"model-1.safetensors","b":"model-2.safetensors",)"
       R"("c":"model-2.safetensors"})",
       "lists c"},
      {R"({"a":"x-1-of-9.safetensors","b":"x-2-of-9.safetensors"})",
       "x-1-of-9.safetensors"},
      {R"({"a":"config.json","b":7})", "2 entries"},
      {"{}", "weight_map"},
      {"[", "line"},
  };
  for (const auto& [map, part] : cases) {
    index(map);
    auto checkpoint = Checkpoint::open(folder_);
    EXPECT_EQ(checkpoint.tensors().size(), 2u) << map;
    ASSERT_EQ(checkpoint.notes().size(), 1u) << map;
    EXPECT_NE(checkpoint.notes()[0].find("index.json"), std::string::npos);
    if (part != std::string("line")) {
      EXPECT_NE(checkpoint.notes()[0].find(part), std::string::npos)
          << checkpoint.notes()[0];
    }
  }
  index(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  EXPECT_TRUE(Checkpoint::open(folder_).notes().empty());
}

TEST_F(CheckpointTest, TheIndexHelpsToNameWhatIsMissing) {
  save("model-1.safetensors", "a");
  index(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  auto checkpoint = Checkpoint::open(folder_);
  EXPECT_TRUE(checkpoint.lacks_files());
  for (const char* name : {"b", "another"}) {
    EXPECT_NE(
        checkpoint.about_missing(name).find("model-2.safetensors"),
        std::string::npos);
  }
  fs::remove(folder_ / "model.safetensors.index.json");
  EXPECT_FALSE(Checkpoint::open(folder_).lacks_files());
  fs::rename(
      folder_ / "model-1.safetensors",
      folder_ / "model-00001-of-00002.safetensors");
  EXPECT_NE(
      Checkpoint::open(folder_).about_missing("b").find(
          "model-00002-of-00002.safetensors"),
      std::string::npos);
  fs::remove(folder_ / "model-00001-of-00002.safetensors");
  index(R"({"a":"model-1.safetensors"})");
  EXPECT_EQ(open_code(), ErrorCode::not_found);
}

// https://github.com/Blaizzy/mlx-vlm/pull/1464 and
// https://github.com/unslothai/unsloth-zoo/pull/808
TEST_F(CheckpointTest, OfATensorThatStandsTwiceTheIndexDecides) {
  save("model-1.safetensors", "a");
  mx::save_safetensors(
      (folder_ / "model-2.safetensors").string(), {{"a", mx::zeros({2})}});
  EXPECT_EQ(open_code(), ErrorCode::corrupt) << "no index, other values";
  for (const char* file : {"model-1.safetensors", "model-2.safetensors"}) {
    index(std::string(R"({"a":")") + file + "\"}");
    auto checkpoint = Checkpoint::open(folder_);
    EXPECT_EQ(checkpoint.info("a").file.filename(), file);
    ASSERT_EQ(checkpoint.notes().size(), 1u);
    EXPECT_NE(checkpoint.notes()[0].find("left out"), std::string::npos);
  }
  // An index that does not hold still knows which of two is meant.
  index(R"({"a":"model-2.safetensors","b":"model-3.safetensors"})");
  EXPECT_EQ(
      Checkpoint::open(folder_).info("a").file.filename(),
      "model-2.safetensors");
  fs::remove(folder_ / "model.safetensors.index.json");
  save("model-2.safetensors", "a");
  auto checkpoint = Checkpoint::open(folder_);
  ASSERT_EQ(checkpoint.notes().size(), 1u);
  EXPECT_NE(checkpoint.notes()[0].find("same values"), std::string::npos);
}

TEST_F(CheckpointTest, ADamagedFileThatTheIndexDoesNotNeedIsLeftOut) {
  save("model-1.safetensors", "a");
  write_file(folder_ / "model-old.safetensors", "x");
  EXPECT_EQ(open_code(), ErrorCode::corrupt);
  index(R"({"a":"model-1.safetensors"})");
  auto checkpoint = Checkpoint::open(folder_);
  ASSERT_EQ(checkpoint.notes().size(), 1u);
  EXPECT_NE(
      checkpoint.notes()[0].find("model-old.safetensors"), std::string::npos);
}

// https://github.com/osaurus-ai/vmlx-swift/pull/217,
// https://github.com/turboderp/exllama/issues/242 and
// https://github.com/debpalash/VoiceStudio/pull/1056
TEST_F(CheckpointTest, WhatIsWrongWithAFileIsSaid) {
  save("model.safetensors", "a");
  const auto whole = read_file(folder_ / "model.safetensors", 1 << 20);
  const auto size = std::to_string(whole.size());
  const auto less = std::to_string(whole.size() - 10);
  const std::pair<std::string, std::string> cases[] = {
      {whole.substr(0, whole.size() - 10), less + " of " + size + " bytes"},
      {whole.substr(0, 20), "cut short: 20 bytes"},
      {"", "is empty"},
      {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
      {"<html>", "cut short"},
      {"<!DOCTYPE html><html></html>", "HTML"},
  };
  for (const auto& [text, part] : cases) {
    write_file(folder_ / "model.safetensors", text);
    try {
      Checkpoint::open(folder_);
      FAIL() << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << error.what();
    }
  }
  fs::remove(folder_ / "model.safetensors");
  fs::create_symlink("gone", folder_ / "model.safetensors");
  EXPECT_EQ(open_code(), ErrorCode::not_found);
}

TEST_F(CheckpointTest, TagsOfFloatsAreDecodedInTheConfig) {
  save("model.safetensors", "a");
  write_file(
      folder_ / "config.json",
      R"({"x": {"__float__": "Infinity"}, "y": -Infinity})");
  auto checkpoint = Checkpoint::open(folder_);
  EXPECT_EQ(checkpoint.config()["x"], INFINITY);
  EXPECT_EQ(checkpoint.config()["y"], -INFINITY);
}

TEST_F(CheckpointTest, EveryTruncationIsRefused) {
  save("model.safetensors", "a");
  auto whole = read_file(folder_ / "model.safetensors", 1 << 20);
  for (size_t length = 0; length < whole.size(); ++length) {
    write_file(folder_ / "model.safetensors", whole.substr(0, length));
    EXPECT_EQ(open_code(), ErrorCode::corrupt) << length;
  }
}

TEST_F(CheckpointTest, MissingPartsAreNotFound) {
  EXPECT_EQ(open_code(), ErrorCode::not_found);
  save("model.safetensors", "a");
  fs::remove(folder_ / "config.json");
  EXPECT_EQ(open_code(), ErrorCode::not_found);
  EXPECT_THROW(Checkpoint::open(folder_ / "nowhere"), Error);
}

// The hub's cache keeps blobs elsewhere and links to them.
TEST_F(CheckpointTest, FollowsLinksAsInTheHubsCache) {
  fs::create_directory(folder_ / "blobs");
  save("blobs/abc.safetensors", "a");
  fs::create_directory(folder_ / "snapshot");
  write_file(folder_ / "snapshot/config.json", "{}");
  fs::create_symlink(
      "../blobs/abc.safetensors", folder_ / "snapshot/model.safetensors");
  EXPECT_EQ(Checkpoint::open(folder_ / "snapshot").tensors().size(), 1u);
}

// What was read must not stay in memory when its array is gone.
TEST_F(CheckpointTest, PagesAreGivenBack) {
  // Bytes of mapped files that are resident: not what the allocator holds.
  auto resident = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssFile:")) {
        return std::stoll(line.substr(8)) * 1024;
      }
    }
    return -1LL;
  };
  if (resident() < 0) {
    GTEST_SKIP() << "no /proc on this system";
  }
  constexpr int64_t kBytes = 64 << 20;
  std::string header = R"({"w":{"dtype":"F32","shape":[4096,4096],)"
                       R"("data_offsets":[0,67108864]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // so that data is aligned
  uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), 8);
  write_file(
      folder_ / "model.safetensors", text + header + std::string(kBytes, '\0'));
  auto checkpoint = Checkpoint::open(folder_);
  auto before = resident();
  {
    auto tensor = checkpoint.load("w");
    require_finite(tensor, "w");
    EXPECT_GT(resident() - before, kBytes / 4 * 3);
  }
  EXPECT_LT(resident() - before, kBytes / 4);
}

// Writers that don't pad the header leave data at odd addresses.
TEST_F(CheckpointTest, DataThatIsNotAlignedIsCopied) {
  for (int pad = 0; pad < 8; ++pad) {
    std::string header = R"({"w":{"dtype":"F32","shape":[2],)"
                         R"("data_offsets":[0,8]}})";
    header.resize((header.size() + 7) / 8 * 8 + pad, ' ');
    uint64_t length = header.size();
    std::string text(reinterpret_cast<const char*>(&length), 8);
    float values[2] = {1.5f, -2};
    text += header + std::string(reinterpret_cast<const char*>(values), 8);
    write_file(folder_ / "model.safetensors", text);
    auto tensor = Checkpoint::open(folder_).load("w");
    EXPECT_EQ(tensor.data<float>()[0], 1.5f) << pad;
    EXPECT_EQ(tensor.data<float>()[1], -2) << pad;
  }
}

TEST(RequireFinite, CountsNanAndInfinityInEachType) {
  for (mx::Dtype dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    auto good = mx::astype(mx::array({1.0f, -2.0f, 0.0f, 1e-6f}), dtype);
    auto bad = mx::astype(
        mx::array({1.0f, INFINITY, -INFINITY, std::nanf("")}), dtype);
    mx::eval(good, bad);
    EXPECT_NO_THROW(require_finite(good, "w"));
    try {
      require_finite(bad, "w");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::numeric);
      EXPECT_NE(
          std::string(error.what()).find("w holds 1 NaN value and 2 infinite"),
          std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace pennyweight
