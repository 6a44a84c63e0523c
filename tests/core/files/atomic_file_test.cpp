#include "core/files/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"

namespace pennyweight {
namespace {

class AtomicTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  size_t count() const {
    size_t found = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder_)) {
      ++found;
    }
    return found;
  }
  fs::path folder_;
};

TEST_F(AtomicTest, AFileAppearsOnlyAtCommit) {
  AtomicFile file(folder_ / "a");
  file.write("hello ");
  file.write("world");
  file.write_at(0, "J", 1);
  EXPECT_FALSE(fs::exists(folder_ / "a"));
  file.commit();
  EXPECT_EQ(read_file(folder_ / "a", 100), "Jello world");
  EXPECT_EQ(count(), 1u);
}

TEST_F(AtomicTest, AnAbandonedFileLeavesNothing) {
  {
    AtomicFile file(folder_ / "a");
    file.write("hello");
  }
  EXPECT_EQ(count(), 0u);
}

TEST_F(AtomicTest, AnOldFileSurvivesAnAbandonedNewOne) {
  write_file(folder_ / "a", "old");
  {
    AtomicFile file(folder_ / "a");
    file.write("new");
  }
  EXPECT_EQ(read_file(folder_ / "a", 100), "old");
}

TEST_F(AtomicTest, ReadFileRefusesWhatIsTooLargeMissingOrNoFile) {
  write_file(folder_ / "a", "0123456789");
  EXPECT_THROW(read_file(folder_ / "a", 9), Error);
  EXPECT_THROW(read_file(folder_ / "b", 9), Error);
  EXPECT_THROW(read_file(folder_, 9), Error);
}

TEST_F(AtomicTest, WritingPastTheEndIsRefused) {
  AtomicFile file(folder_ / "a");
  file.write("abc");
  EXPECT_THROW(file.write_at(2, "xy", 2), Error);
}

TEST_F(AtomicTest, AFullDiskIsAnIoErrorThatNamesTheFile) {
  if (!fs::exists("/dev/full")) {
    GTEST_SKIP() << "no /dev/full on this system";
  }
  // AtomicFile writes beside its target, so the device can't be the target:
  // the errno is what is tested here, the tests in Python fill a real disk.
  auto error = io_error("write", "can't write", "/dev/full", ENOSPC);
  EXPECT_EQ(error.code(), ErrorCode::io);
  EXPECT_NE(std::string(error.what()).find("/dev/full"), std::string::npos);
  EXPECT_NE(std::string(error.what()).find("space"), std::string::npos);
}

TEST_F(AtomicTest, AFolderAppearsOnlyAtCommit) {
  {
    AtomicFolder out(folder_ / "model", false);
    write_file(out.path() / "config.json", "{}");
    EXPECT_FALSE(fs::exists(folder_ / "model"));
    out.commit();
  }
  EXPECT_TRUE(fs::exists(folder_ / "model" / "config.json"));
  EXPECT_EQ(count(), 1u);
}

TEST_F(AtomicTest, AnAbandonedFolderLeavesNothing) {
  {
    AtomicFolder out(folder_ / "model", false);
    write_file(out.path() / "config.json", "{}");
  }
  EXPECT_EQ(count(), 0u);
}

TEST_F(AtomicTest, FoldersMadeOnTheWayGoWithAnAbandonedOne) {
  {
    AtomicFolder out(folder_ / "a/b/model", false);
    EXPECT_TRUE(fs::exists(folder_ / "a/b"));
  }
  EXPECT_EQ(count(), 0u);
  {
    AtomicFolder out(folder_ / "a/b/model", false);
    out.commit();
  }
  EXPECT_TRUE(fs::exists(folder_ / "a/b/model"));
}

TEST_F(AtomicTest, AnExistingFolderNeedsForceAndMustBeAModel) {
  fs::create_directory(folder_ / "model");
  write_file(folder_ / "model" / "thesis.txt", "years of work");
  EXPECT_THROW(AtomicFolder(folder_ / "model", false), Error);
  EXPECT_THROW(AtomicFolder(folder_ / "model", true), Error);
  EXPECT_EQ(read_file(folder_ / "model" / "thesis.txt", 100), "years of work");

  write_file(folder_ / "model" / "config.json", "{}");
  AtomicFolder out(folder_ / "model/", true);
  write_file(out.path() / "config.json", "{\"new\": 1}");
  EXPECT_TRUE(fs::exists(folder_ / "model" / "thesis.txt"));
  out.commit();
  EXPECT_FALSE(fs::exists(folder_ / "model" / "thesis.txt"));
  EXPECT_EQ(read_file(folder_ / "model" / "config.json", 99), "{\"new\": 1}");
  EXPECT_EQ(count(), 1u);
}

// A process id that is certainly not in use: a child that was waited for.
pid_t dead_process() {
  pid_t child = ::fork();
  if (child == 0) {
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  return child;
}

TEST_F(AtomicTest, WhatAKilledProcessLeftGoesAndALiveOnesStays) {
  auto dead = folder_ / (".model.work" + std::to_string(dead_process()));
  auto alive = folder_ / (".model.work" + std::to_string(::getppid()));
  auto other = folder_ / ".model.work12x";
  for (const auto& path : {dead, alive, other}) {
    fs::create_directory(path);
    write_file(path / "model.safetensors", "half");
  }
  AtomicFolder out(folder_ / "model", false);
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(alive));
  EXPECT_TRUE(fs::exists(other));
}

TEST_F(AtomicTest, AFolderLostBetweenTwoRenamesComesBack) {
  auto old = folder_ / (".model.old" + std::to_string(dead_process()));
  fs::create_directory(old);
  write_file(old / "config.json", "{\"old\": 1}");
  EXPECT_THROW(AtomicFolder(folder_ / "model", false), Error);
  EXPECT_EQ(read_file(folder_ / "model" / "config.json", 99), "{\"old\": 1}");
  EXPECT_EQ(count(), 1u);
}

TEST_F(AtomicTest, ATargetThatAppearedMeanwhileIsNotReplaced) {
  AtomicFolder out(folder_ / "model", false);
  write_file(out.path() / "config.json", "{}");
  fs::create_directory(folder_ / "model");
  EXPECT_THROW(out.commit(), Error);
}

TEST_F(AtomicTest, AFolderThatCantBeWrittenIsAnIoError) {
  write_file(folder_ / "file", "x");
  try {
    AtomicFolder out(folder_ / "file" / "model", false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
  }
}

TEST_F(AtomicTest, APipeIsNotWaitedFor) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(read_file(folder_ / "pipe", 9), Error);
}

TEST_F(AtomicTest, NothingButAFileIsReplaced) {
  fs::create_directory(folder_ / "folder");
  write_file(folder_ / "real", "real");
  fs::create_symlink("real", folder_ / "link");
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  for (const char* name : {"folder", "link", "pipe"}) {
    try {
      write_file(folder_ / name, "new");
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos);
    }
  }
  EXPECT_EQ(read_file(folder_ / "real", 9), "real");
  EXPECT_EQ(count(), 4u);
}

TEST_F(AtomicTest, ALinkThatAppearedMeanwhileIsNotReplaced) {
  AtomicFile file(folder_ / "a");
  file.write("new");
  fs::create_symlink("nowhere", folder_ / "a");
  EXPECT_THROW(file.commit(), Error);
  EXPECT_TRUE(fs::is_symlink(folder_ / "a"));
}

TEST_F(AtomicTest, ALinkInPlaceOfTheTemporaryFileIsNotWrittenThrough) {
  write_file(folder_ / "real", "real");
  fs::create_symlink(
      "real", folder_ / (".a.part" + std::to_string(::getpid())));
  write_file(folder_ / "a", "new");
  EXPECT_EQ(read_file(folder_ / "real", 9), "real");
  EXPECT_EQ(read_file(folder_ / "a", 9), "new");
  EXPECT_EQ(count(), 2u);
}

TEST_F(AtomicTest, ThePartOfAKilledProcessGoesAndOthersStay) {
  const auto dead = std::to_string(dead_process());
  write_file(folder_ / (".a.part" + dead), "half");
  write_file(folder_ / (".b.part" + dead), "half");
  write_file(folder_ / (".a.part" + std::to_string(::getppid())), "half");
  fs::create_directory(folder_ / (".c.part" + dead));
  write_file(folder_ / "a", "new");
  write_file(folder_ / "c", "new");
  EXPECT_FALSE(fs::exists(folder_ / (".a.part" + dead)));
  EXPECT_EQ(count(), 5u);
}

TEST_F(AtomicTest, ALinkToAModelIsNotReplaced) {
  fs::create_directory(folder_ / "real");
  write_file(folder_ / "real" / "config.json", "{}");
  fs::create_directory_symlink("real", folder_ / "model");
  EXPECT_THROW(AtomicFolder(folder_ / "model", true), Error);
  EXPECT_TRUE(fs::is_symlink(folder_ / "model"));
  EXPECT_EQ(count(), 2u);
}

}  // namespace
}  // namespace pennyweight
