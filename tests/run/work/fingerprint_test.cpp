#include "run/work/fingerprint.h"

#include <fstream>

#include "core/json.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::random_tensors;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::write_checkpoint;

class FingerprintTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_checkpoint(folder_.path(), config_, random_tensors(config_));
  }
  std::string of() const {
    return fingerprint(open_model(folder_.path()));
  }
  fs::path weights() const {
    return folder_.path() / "model.safetensors";
  }
  // Flips a bit, in the same file, and dates it a second later.
  void flip(std::streamoff at) const {
    const auto time = fs::last_write_time(weights());
    std::fstream file(
        weights(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(byte);
    file.close();
    fs::last_write_time(weights(), time + std::chrono::seconds(1));
  }
  // Where the tensors begin.
  std::streamoff data() const {
    std::ifstream file(weights(), std::ios::binary);
    uint64_t header = 0;
    file.read(reinterpret_cast<char*>(&header), 8);
    return static_cast<std::streamoff>(header) + 8;
  }

  Json config_ = tiny_config();
  TemporaryFolder folder_;
};

TEST_F(FingerprintTest, EveryByteOfTheWeightsCounts) {
  const auto before = of();
  EXPECT_EQ(before.size(), 32u);
  EXPECT_EQ(of(), before);
  const auto size = static_cast<std::streamoff>(fs::file_size(weights()));
  for (int i = 0; i < 8; ++i) {
    const auto at = data() + (size - 1 - data()) * i / 7;
    flip(at);
    EXPECT_NE(of(), before) << at;
    flip(at);
    EXPECT_EQ(of(), before) << at;
  }
}

TEST_F(FingerprintTest, SoDoesTheConfigAndNotThePlace) {
  const auto before = of();
  TemporaryFolder other;
  write_checkpoint(other.path(), config_, random_tensors(config_));
  const auto moved = identify(open_model(other.path()));
  EXPECT_EQ(moved.content, before);
  EXPECT_EQ(moved.folder, fs::canonical(other.path()).string());
  config_["rope_theta"] = 20000.0;
  write_checkpoint(folder_.path(), config_, random_tensors(config_));
  EXPECT_NE(of(), before);
}

TEST_F(FingerprintTest, AFileThatIsWrittenToWhileItIsReadIsAnError) {
  const auto model = open_model(folder_.path());
  model.checkpoint.require_unchanged();
  flip(data());
  expect_error(ErrorCode::io, "model.safetensors was written to", [&] {
    model.checkpoint.require_unchanged();
  });
  expect_error(ErrorCode::io, "written to", [&] { fingerprint(model); });
  // One put in its place is not what is read.
  const auto again = open_model(folder_.path());
  fs::rename(weights(), folder_.path() / "old");
  fs::copy(folder_.path() / "old", weights());
  again.checkpoint.require_unchanged();
}

}  // namespace
}  // namespace pennyweight
