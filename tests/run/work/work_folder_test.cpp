#include "run/work/work_folder.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <fstream>
#include <functional>
#include <optional>

#include "core/files/atomic_file.h"
#include "core/json.h"
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

TEST(WorkFolder, ForceStartsAfreshUnlessToldToGoOn) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 2);
  EXPECT_EQ(
      WorkFolder(target, kSettings, {.resume = true, .force = true}).finished(),
      2);
  WorkFolder work(target, kSettings, {.force = true});
  EXPECT_EQ(work.finished(), 0);
  EXPECT_TRUE(work.warnings().empty());
}

TEST(WorkFolder, APartOfALargerRunDropsWorkOfOtherSettings) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  leave_unfinished(target, 1);
  EXPECT_EQ(WorkFolder(target, kSettings, {.part = true}).finished(), 1);
  auto other = kSettings;
  other["v"] = 2;
  EXPECT_EQ(WorkFolder(target, other, {.part = true}).finished(), 0);
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
  ASSERT_EQ(work.warnings().size(), 1u);
  EXPECT_NE(
      work.warnings()[0].find("block-00001 is missing"), std::string::npos);
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

// Finished blocks after `harm` was done to a run of four, which must be told
// in one warning that names `what`.
void expect_made_again(
    const std::string& what,
    int finished,
    const std::function<void(const fs::path& work)>& harm) {
  TemporaryFolder folder;
  const auto target = folder.path() / "out";
  leave_unfinished(target, 4);
  harm(folder.path() / ".out.pennyweight");
  WorkFolder work(target, kSettings, {});
  EXPECT_EQ(work.finished(), finished) << what;
  ASSERT_EQ(work.warnings().size(), 1u) << what;
  EXPECT_NE(work.warnings()[0].find(what), std::string::npos)
      << work.warnings()[0];
  for (int i = 0; i < finished; ++i) {
    EXPECT_EQ(work.load_report(i), Json({{"i", i}}));
  }
  for (int i = finished; i < 4; ++i) {
    work.save_block(i, some_tensors(i), {{"i", i}});
  }
}

void edit(
    const fs::path& file,
    const std::string& from,
    const std::string& to) {
  auto text = read_file(file, 1 << 20);
  const auto at = text.find(from);
  ASSERT_NE(at, std::string::npos) << text;
  std::ofstream(file) << text.replace(at, from.size(), to);
}

TEST(WorkFolder, WhatIsDamagedIsMadeAgain) {
  const std::string tensors = "block-00002/model.safetensors";
  const std::string report = "block-00001/report.json";
  expect_made_again(tensors, 2, [&](const fs::path& work) {
    fs::resize_file(work / tensors, 9);
  });
  expect_made_again(
      tensors, 2, [&](const fs::path& work) { fs::remove(work / tensors); });
  expect_made_again(report, 1, [&](const fs::path& work) {
    edit(work / report, "\"i\": 1", "\"i\": 2");
  });
  expect_made_again(report, 1, [&](const fs::path& work) {
    fs::remove(work / report);
    fs::create_directory(work / report);
  });
  expect_made_again("block-00000", 0, [](const fs::path& work) {
    fs::rename(work / "block-00000", work / "other");
    fs::rename(work / "block-00001", work / "block-00000");
    fs::rename(work / "other", work / "block-00001");
  });
  for (const char* text : {"", "[]", "{\"checksum\": 3}", "{\"tensors\": 0}"}) {
    expect_made_again(report, 1, [&](const fs::path& work) {
      std::ofstream(work / report) << text;
    });
  }
}

TEST(WorkFolder, ABlockOfAnotherRunIsNotTaken) {
  TemporaryFolder other;
  auto settings = kSettings;
  settings["v"] = 2;
  {
    WorkFolder work(other.path() / "out", settings, {});
    work.save_block(0, some_tensors(0), {{"i", 0}});
  }
  expect_made_again("block-00000", 0, [&](const fs::path& work) {
    fs::remove_all(work / "block-00000");
    fs::copy(
        other.path() / ".out.pennyweight" / "block-00000",
        work / "block-00000");
  });
}

TEST(WorkFolder, LinksInItAreDroppedAndNotFollowed) {
  TemporaryFolder precious;
  std::ofstream(precious.path() / "thesis.txt") << "years of work";
  std::ofstream(precious.path() / "report.json") << "{}";
  const auto keeps = [&] {
    EXPECT_EQ(read_file(precious.path() / "thesis.txt", 100), "years of work");
    EXPECT_EQ(read_file(precious.path() / "report.json", 100), "{}");
  };
  for (const std::string name :
       {"block-00001", "block-00001/report.json", "settings.json"}) {
    expect_made_again(
        name, name == "settings.json" ? 0 : 1, [&](const fs::path& work) {
          fs::remove_all(work / name);
          fs::create_symlink(
              name == "block-00001" ? precious.path()
                                    : precious.path() / "report.json",
              work / name);
        });
    keeps();
  }
  TemporaryFolder folder;
  const auto target = folder.path() / "out";
  const auto path = folder.path() / ".out.pennyweight";
  leave_unfinished(target, 1);
  fs::remove(path / "lock");
  fs::create_symlink(precious.path() / "thesis.txt", path / "lock");
  fs::create_directory_symlink(precious.path(), path / "stages");
  EXPECT_EQ(WorkFolder(target, kSettings, {}).finished(), 1);
  keeps();
  EXPECT_FALSE(fs::is_symlink(path / "lock"));
}

TEST(WorkFolder, ALinkInItsPlaceIsRefused) {
  TemporaryFolder folder;
  const auto target = folder.path() / "out";
  const auto path = folder.path() / ".out.pennyweight";
  fs::create_directory(folder.path() / "precious");
  const auto thesis = folder.path() / "precious" / "thesis.txt";
  std::ofstream(thesis) << "years of work";
  fs::create_directory_symlink(folder.path() / "precious", path);
  for (bool resume : {false, true}) {
    expect_error(ErrorCode::invalid_argument, "is a link", [&] {
      WorkFolder(target, kSettings, {.resume = resume});
    });
  }
  EXPECT_TRUE(fs::exists(thesis));
  {
    WorkFolder work(target, kSettings, {.force = true});
    work.save_block(0, some_tensors(0), {});
    EXPECT_FALSE(fs::is_symlink(path));
  }
  EXPECT_EQ(read_file(thesis, 100), "years of work");
}

TEST(WorkFolder, AFolderThatNoRunMadeIsNotEmptied) {
  TemporaryFolder folder;
  const auto target = folder.path() / "out";
  const auto path = folder.path() / ".out.pennyweight";
  fs::create_directory(path);
  std::ofstream(path / "thesis.txt") << "years of work";
  expect_error(ErrorCode::invalid_argument, "holds thesis.txt", [&] {
    WorkFolder(target, kSettings, {});
  });
  EXPECT_EQ(read_file(path / "thesis.txt", 100), "years of work");
  EXPECT_FALSE(fs::exists(path / "lock"));
  EXPECT_EQ(WorkFolder(target, kSettings, {.force = true}).finished(), 0);
  EXPECT_FALSE(fs::exists(path));
}

TEST(WorkFolder, PutElsewhereMeanwhileItIsLeftThere) {
  TemporaryFolder folder;
  const auto path = folder.path() / ".out.pennyweight";
  fs::create_directory(folder.path() / "precious");
  const auto thesis = folder.path() / "precious" / "thesis.txt";
  std::ofstream(thesis) << "years of work";
  WorkFolder work(folder.path() / "out", kSettings, {});
  work.save_block(0, some_tensors(0), {});
  fs::rename(path, folder.path() / "moved");
  fs::create_directory_symlink(folder.path() / "precious", path);
  work.save_block(1, some_tensors(1), {});
  EXPECT_TRUE(fs::exists(folder.path() / "moved" / "block-00001"));
  expect_error(ErrorCode::io, "no longer the folder", [&] { work.path(); });
  expect_error(ErrorCode::io, "no longer the folder", [&] { work.stages(); });
  work.remove();
  EXPECT_TRUE(fs::is_symlink(path));
  EXPECT_EQ(read_file(thesis, 100), "years of work");
}

TEST(WorkFolder, AModelThatHoldsSomethingElseNow) {
  TemporaryFolder folder;
  const auto target = folder.path() / "out";
  const auto of = [](const std::string& where, const std::string& content) {
    return WorkSettings(kSettings, {{"model", {where, content}}});
  };
  {
    WorkFolder work(target, of("/m", "one"), {});
    work.save_block(0, some_tensors(0), {});
  }
  // It lies elsewhere, which does not matter.
  EXPECT_EQ(WorkFolder(target, of("/n", "one"), {}).finished(), 1);
  expect_error(ErrorCode::invalid_argument, "model (/m, now /n)", [&] {
    WorkFolder(target, of("/n", "two"), {});
  });
  WorkFolder work(target, of("/m", "two"), {.resume = true});
  EXPECT_EQ(work.finished(), 0);
  ASSERT_EQ(work.warnings().size(), 1u);
  EXPECT_NE(work.warnings()[0].find("/m holds has changed"), std::string::npos);
}

TEST(WorkFolder, ADamagedStateIsMadeAgain) {
  TemporaryFolder folder;
  const auto target = folder.path() / "out";
  {
    WorkFolder work(target, kSettings, {});
    work.save_state(3, some_tensors(0), {{"i", 0}});
    work.stages().make_folder("gptq");
  }
  const auto path = folder.path() / ".out.pennyweight";
  {
    WorkFolder work(target, kSettings, {});
    EXPECT_EQ(work.state(), 3);
    EXPECT_EQ(work.load_state_report(), Json({{"i", 0}}));
    EXPECT_TRUE(fs::exists(path / "stages" / "gptq"));
  }
  edit(path / "state-0000000003" / "report.json", "\"i\": 0", "\"i\": 5");
  WorkFolder work(target, kSettings, {});
  EXPECT_FALSE(work.state());
  EXPECT_EQ(work.warnings().size(), 1u);
  EXPECT_FALSE(fs::exists(path / "stages"));
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
  EXPECT_EQ(read_json(settings).at("settings"), kSettings);
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

TEST(WorkFolder, DamagedSettingsAreSaidAndStartedAfresh) {
  TemporaryFolder folder;
  auto target = folder.path() / "out";
  auto settings = folder.path() / ".out.pennyweight" / "settings.json";
  for (const bool edited : {false, true}) {
    leave_unfinished(target, 1);
    if (edited) {
      edit(settings, "0.01", "0.02");
    } else {
      std::ofstream(settings) << "{\"opt";
    }
    expect_error(ErrorCode::not_found, "settings.json is damaged", [&] {
      WorkFolder(target, kSettings, {.resume = true});
    });
    WorkFolder work(target, kSettings, {});
    EXPECT_EQ(work.finished(), 0);
    ASSERT_EQ(work.warnings().size(), 1u);
    EXPECT_NE(work.warnings()[0].find("settings.json"), std::string::npos);
  }
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
