#include "core/files/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "core/files/atomic_file.h"
#include "support/expect_error.h"

namespace pennyweight {
namespace {

using testing::expect_error;

class OutputFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  std::string text(const std::string& name) const {
    return read_file(folder_ / name, 1000);
  }
  fs::path folder_;
};

TEST_F(OutputFileTest, AFileThatIsThereNeedsForce) {
  write_file(folder_ / "a", "old");
  expect_error(ErrorCode::invalid_argument, "--json", [&] {
    OutputFile(folder_ / "a", false, "--json");
  });
  expect_error(ErrorCode::invalid_argument, "--force", [&] {
    OutputFile(folder_ / "a", false, "--json");
  });
  const OutputFile file(folder_ / "a", true, "--json");
  EXPECT_EQ(text("a"), "old");
  file.write("new");
  EXPECT_EQ(text("a"), "new");
}

TEST_F(OutputFileTest, NothingIsLeftWhereNothingIsWritten) {
  const OutputFile file(folder_ / "a", false, "--json");
  EXPECT_TRUE(fs::is_empty(folder_));
  write_file(folder_ / "a", "another's");
  expect_error(ErrorCode::invalid_argument, "already exists", [&] {
    file.write("late");
  });
  EXPECT_EQ(text("a"), "another's");
}

TEST_F(OutputFileTest, WhatCantBeWrittenIsFoundFirst) {
  expect_error(ErrorCode::not_found, "none", [&] {
    OutputFile(folder_ / "none" / "a", false, "--json");
  });
  expect_error(ErrorCode::invalid_argument, "is a folder", [&] {
    OutputFile(folder_, true, "--json");
  });
  fs::create_symlink("nowhere", folder_ / "link");
  expect_error(ErrorCode::invalid_argument, "a link to nothing", [&] {
    OutputFile(folder_ / "link", true, "--json");
  });
}

TEST_F(OutputFileTest, ALinkStaysAndItsFileIsReplaced) {
  write_file(folder_ / "a", "old");
  fs::create_symlink("a", folder_ / "link");
  expect_error(ErrorCode::invalid_argument, "already exists", [&] {
    OutputFile(folder_ / "link", false, "--json");
  });
  const OutputFile file(folder_ / "link", true, "--json");
  file.write("new");
  EXPECT_EQ(text("a"), "new");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_TRUE(file.is(OutputFile(folder_ / "a", true, "--report")));
  EXPECT_FALSE(file.is(OutputFile(folder_ / "b", true, "--report")));
}

TEST_F(OutputFileTest, APipeAndADeviceAreWrittenTo) {
  const auto pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::string got(100, '\0');
  std::thread reader([&] {
    const Descriptor fd(::open(pipe.c_str(), O_RDONLY));
    const auto count = ::read(fd.get(), got.data(), got.size());
    got.resize(count < 0 ? 0 : static_cast<size_t>(count));
  });
  OutputFile(pipe, false, "--json").write("result");
  reader.join();
  EXPECT_EQ(got, "result");
  EXPECT_TRUE(fs::is_fifo(pipe));
  OutputFile("/dev/null", false, "--json").write("result");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  if (fs::exists("/dev/full")) {
    expect_error(ErrorCode::io, "/dev/full", [] {
      OutputFile("/dev/full", false, "--json").write("result");
    });
  }
}

TEST_F(OutputFileTest, AnOpenFileIsWrittenOnWith) {
  const Descriptor fd(
      ::open((folder_ / "a").c_str(), O_WRONLY | O_CREAT, 0600));
  ASSERT_EQ(::write(fd.get(), "first ", 6), 6);
  const auto name = "/dev/fd/" + std::to_string(fd.get());
  OutputFile(name, false, "--json").write("second");
  EXPECT_EQ(text("a"), "first second");
  expect_error(ErrorCode::io, "/dev/fd/999", [] {
    OutputFile("/dev/fd/999", false, "--json");
  });
}

}  // namespace
}  // namespace pennyweight
