#include "pipeline/work_folder.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <fstream>
#include <optional>

#include "core/atomic_file.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

const Json kSettings = {{"options", {{"bits", 4}, {"damp", 0.01}}}, {"v", 1}};

std::map<std::string, mx::array> some_tensors(int seed) {
  return {
      {"a.weight", mx::array({uint32_t(seed), 2u, 3u})},
      {"a.scales", mx::full({2, 2}, float(seed), mx::bfloat16)}};
}

// A run that saved `blocks` blocks and was killed.
void leave_unfinished(const fs::path& target, int blocks) {
  WorkFolder work(target, kSettings, {});
  for (int i = 0; i < blocks; ++i) {
    work.save_block(i, some_tensors(i), {{"i", i}});
  }
}

TEST(WorkFolder, GoesOnWithFinishedBlocks) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 2);
  WorkFolder work(target, kSettings, {.resume = true});
  EXPECT_TRUE(work.resumed());
  ASSERT_EQ(work.finished(), 2);
  EXPECT_EQ(work.load_report(1), Json({{"i", 1}}));
  auto tensors = work.load_block(1);
  auto expected = some_tensors(1);
  ASSERT_EQ(tensors.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_EQ(tensors.at(name).dtype(), tensor.dtype());
    EXPECT_TRUE(mx::array_equal(tensors.at(name), tensor).item<bool>());
  }
  work.save_block(2, some_tensors(2), {});
  EXPECT_EQ(work.finished(), 3);
  work.remove();
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(WorkFolder, LeavesNothingWhereNothingWasFinished) {
  TemporaryFolder folder;
  leave_unfinished(folder.path() / "out", 0);
  EXPECT_TRUE(fs::is_empty(folder.path()));
  expect_error(ErrorCode::not_found, "no unfinished run", [&] {
    WorkFolder(folder.path() / "out", kSettings, {.resume = true});
  });
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(WorkFolder, OtherSettingsAreNamed) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 1);
  auto other = kSettings;
  other["options"]["bits"] = 3;
  expect_error(ErrorCode::invalid_argument, "options.bits (4, now 3);", [&] {
    WorkFolder(target, other, {});
  });
  {
    // The refusal has cost nothing.
    EXPECT_EQ(WorkFolder(target, kSettings, {}).finished(), 1);
  }
  WorkFolder work(target, other, {.force = true});
  EXPECT_EQ(work.finished(), 0);
}

TEST(WorkFolder, ForceKeepsWorkOfEqualSettings) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 1);
  EXPECT_EQ(WorkFolder(target, kSettings, {.force = true}).finished(), 1);
}

TEST(WorkFolder, HalfWrittenBlocksAndThoseBehindAGapGo) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 3);
  auto work_path = folder.path() / ".out.pennyweight";
  fs::remove_all(work_path / "block-00001");
  fs::create_directory(work_path / ".block-00001.work999999");
  WorkFolder work(target, kSettings, {});
  EXPECT_EQ(work.finished(), 1);
  EXPECT_FALSE(fs::exists(work_path / "block-00002"));
  EXPECT_FALSE(fs::exists(work_path / ".block-00001.work999999"));
}

void put(const fs::path& file, std::streamoff at, char byte) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekp(at);
  bytes.put(byte);
}

// A damaged byte is found, or is one that says nothing.
TEST(WorkFolder, DamageIsFound) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 1);
  auto file =
      folder.path() / ".out.pennyweight" / "block-00000" / "model.safetensors";
  WorkFolder work(target, kSettings, {});
  const auto expected = some_tensors(0);
  const auto whole = read_file(file, 1 << 20);
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto at = static_cast<std::streamoff>(i);
    put(file, at, static_cast<char>(whole[i] ^ 1));
    try {
      auto tensors = work.load_block(0);
      ASSERT_EQ(tensors.size(), expected.size()) << i;
      for (const auto& [name, tensor] : expected) {
        ASSERT_EQ(tensors.at(name).shape(), tensor.shape()) << i;
        ASSERT_TRUE(mx::array_equal(tensors.at(name), tensor).item<bool>());
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt) << error.what();
    }
    put(file, at, whole[i]);
  }
  put(file, static_cast<std::streamoff>(whole.size()) - 1, 'x');
  expect_error(
      ErrorCode::corrupt, "model.safetensors", [&] { work.load_block(0); });
}

TEST(WorkFolder, ForceDropsWhatIsDamaged) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  auto work_path = folder.path() / ".out.pennyweight";
  leave_unfinished(target, 4);
  fs::resize_file(work_path / "block-00002" / "model.safetensors", 9);
  EXPECT_EQ(WorkFolder(target, kSettings, {}).finished(), 4);
  EXPECT_EQ(WorkFolder(target, kSettings, {.force = true}).finished(), 2);
  for (const char* text : {"", "[]", "{\"checksum\": 3}", "{\"tensors\": 0}"}) {
    std::ofstream(work_path / "block-00001" / "report.json") << text;
    WorkFolder work(target, kSettings, {});
    expect_error(ErrorCode::corrupt, "is damaged", [&] { work.load_block(1); });
  }
  EXPECT_EQ(WorkFolder(target, kSettings, {.force = true}).finished(), 1);
}

TEST(WorkFolder, ABlockOfWhichNothingIsQuantized) {
  TemporaryFolder folder;
  WorkFolder work(folder.path() / "out", kSettings, {});
  work.save_block(0, {}, {{"i", 0}});
  EXPECT_TRUE(work.load_block(0).empty());
  EXPECT_EQ(work.load_report(0), Json({{"i", 0}}));
  expect_error(ErrorCode::invalid_argument, "not the next", [&] {
    work.save_block(2, {}, {});
  });
}

// Killed before its first block: nothing is lost by other settings.
TEST(WorkFolder, SettingsWithoutABlockBindNobody) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  auto settings = folder.path() / ".out.pennyweight" / "settings.json";
  fs::create_directory(settings.parent_path());
  std::ofstream(settings) << "{\"v\": 2}";
  WorkFolder work(target, kSettings, {});
  EXPECT_EQ(read_json(settings), kSettings);
}

TEST(WorkFolder, RemovedIsFreeForTheNext) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  std::optional<WorkFolder> first(
      std::in_place, target, kSettings, ResumePolicy{});
  first->save_block(0, some_tensors(0), {});
  first->remove();
  WorkFolder second(target, kSettings, {});
  second.save_block(0, some_tensors(0), {});
  first.reset();
  EXPECT_EQ(second.load_block(0).size(), 2u);
}

TEST(WorkFolder, DamagedSettingsAreSaid) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 1);
  auto settings = folder.path() / ".out.pennyweight" / "settings.json";
  std::ofstream(settings) << "{\"opt";
  expect_error(ErrorCode::corrupt, "settings.json", [&] {
    WorkFolder(target, kSettings, {});
  });
  EXPECT_EQ(WorkFolder(target, kSettings, {.force = true}).finished(), 0);
}

TEST(WorkFolder, OneProcessAtATimeAndNoTargetInTheWay) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  WorkFolder work(target, kSettings, {});
  expect_error(ErrorCode::invalid_argument, "another process", [&] {
    WorkFolder(target, kSettings, {});
  });
  auto taken = folder.path() / "taken";
  fs::create_directory(taken);
  expect_error(ErrorCode::invalid_argument, "already exists", [&] {
    WorkFolder(taken, kSettings, {});
  });
}

TEST(WorkFolder, AReaderChangesNothing) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 1);
  WorkFolder writer(target, kSettings, {});
  WorkFolder reader(target, kSettings, {}, false);
  EXPECT_EQ(reader.finished(), 1);
  EXPECT_EQ(reader.load_block(0).size(), 2u);
}

}  // namespace
}  // namespace pennyweight
