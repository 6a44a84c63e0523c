#include "checkpoint/held_files.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include <algorithm>
#include <fstream>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors_writer.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "support/expect_error.h"

namespace pennyweight {
namespace {

constexpr int kFiles = 4;
constexpr int kLarge = 40'000;  // floats: more than kAlwaysThere

std::string name_of(int file) {
  return "model-0000" + std::to_string(file + 1) + "-of-00004.safetensors";
}

/// Hands out files of `whole`, and says what it was asked.
class FolderProvider : public ShardProvider {
 public:
  explicit FolderProvider(fs::path whole) : whole_(std::move(whole)) {}

  fs::path fetch(const std::string& file) override {
    asked.push_back("+" + file.substr(10, 1));
    ++held;
    most = std::max(most, held);
    if (file == broken) {
      throw Error(ErrorCode::io, "hub", file + " did not come");
    }
    return whole_ / file;
  }
  void release(const std::string& file) override {
    asked.push_back("-" + file.substr(10, 1));
    --held;
  }

  std::vector<std::string> asked;
  std::string broken;
  int held = 0;
  int most = 0;

 private:
  fs::path whole_;
};

class HeldFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    fs::create_directories(folder_ / "whole");
    fs::create_directories(folder_ / "stubs");
    write_file(folder_ / "stubs" / "config.json", "{}");
    write_file(folder_ / "whole" / "config.json", "{}");
    for (int i = 0; i < kFiles; ++i) {
      const auto number = std::to_string(i);
      write_safetensors(
          folder_ / "whole" / name_of(i),
          {{"large" + number, mx::full({4, kLarge / 4}, float(i + 1))},
           {"small" + number, mx::full({8}, float(i + 1))}});
      write_stub(i);
    }
    provider_ = std::make_shared<FolderProvider>(folder_ / "whole");
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }

  // The header and the small tensor of a file, which stands at its end.
  void write_stub(int i) const {
    auto bytes = read_file(folder_ / "whole" / name_of(i), 1 << 24);
    const size_t end = bytes.size() - 8 * sizeof(float);
    const size_t begin = end - kLarge * sizeof(float);
    std::fill(bytes.begin() + long(begin), bytes.begin() + long(end), '\0');
    write_file(folder_ / "stubs" / name_of(i), bytes);
  }

  static float value(const mx::array& array) {
    return mx::max(array).item<float>();
  }

  fs::path folder_;
  std::shared_ptr<FolderProvider> provider_;
};

TEST_F(HeldFilesTest, FetchesWhatIsReadAndHoldsTwo) {
  const auto checkpoint = Checkpoint::open(folder_ / "stubs", provider_);
  EXPECT_TRUE(checkpoint.is_streamed());
  for (int i = 0; i < kFiles; ++i) {
    EXPECT_EQ(value(checkpoint.load("small" + std::to_string(i))), i + 1);
  }
  EXPECT_TRUE(provider_->asked.empty()) << "small ones are always there";
  const auto kept = checkpoint.load("large0");
  EXPECT_EQ(value(checkpoint.load_rows("large1", 1, 2)), 2);
  EXPECT_EQ(value(checkpoint.load("large0")), 1);
  EXPECT_EQ(value(checkpoint.load("large2")), 3);
  checkpoint.read("large3", 0, 4, [](const char* data, size_t) {
    EXPECT_EQ(*reinterpret_cast<const float*>(data), 4);
  });
  EXPECT_EQ(
      provider_->asked,
      (std::vector<std::string>{"+1", "+2", "-2", "+3", "-1", "+4"}));
  EXPECT_EQ(provider_->most, 2);
  EXPECT_EQ(value(kept), 1) << "a view outlasts its file";
  checkpoint.release(name_of(2));
  checkpoint.release(name_of(2));
  EXPECT_EQ(provider_->asked.back(), "-3");
  EXPECT_EQ(provider_->held, 1);
  EXPECT_EQ(
      checkpoint.fetched_bytes(),
      int64_t(4 * fs::file_size(folder_ / "whole" / name_of(0))));
}

TEST_F(HeldFilesTest, AFileThatIsNotItsStubsIsCorrupt) {
  const auto checkpoint = Checkpoint::open(folder_ / "stubs", provider_);
  fs::copy_file(
      folder_ / "whole" / name_of(1),
      folder_ / "whole" / name_of(0),
      fs::copy_options::overwrite_existing);
  testing::expect_error(
      ErrorCode::corrupt, "not the file", [&] { checkpoint.load("large0"); });
}

TEST_F(HeldFilesTest, WhatDoesNotComeIsAnErrorAndMayComeLater) {
  const auto checkpoint = Checkpoint::open(folder_ / "stubs", provider_);
  provider_->broken = name_of(1);
  testing::expect_error(
      ErrorCode::io, "did not come", [&] { checkpoint.load("large1"); });
  provider_->broken.clear();
  EXPECT_EQ(value(checkpoint.load("large1")), 2);
}

TEST_F(HeldFilesTest, AFolderThatHasAllAsksNobody) {
  const auto checkpoint = Checkpoint::open(folder_ / "whole");
  EXPECT_FALSE(checkpoint.is_streamed());
  EXPECT_EQ(value(checkpoint.load("large1")), 2);
  checkpoint.release(name_of(1));
  EXPECT_EQ(checkpoint.fetched_bytes(), 0);
}

}  // namespace
}  // namespace pennyweight
