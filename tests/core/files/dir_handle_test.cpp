#include "core/files/dir_handle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/files/atomic_file.h"
#include "support/expect_error.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using Kind = DirHandle::Kind;

class DirHandleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    fs::create_directory(root_ / "own");
    fs::create_directory(root_ / "precious");
    write_file(root_ / "precious" / "thesis.txt", "years of work");
  }
  void TearDown() override {
    EXPECT_EQ(
        read_file(root_ / "precious" / "thesis.txt", 100), "years of work");
    fs::remove_all(root_);
  }
  DirHandle own() const {
    return DirHandle::open(root_ / "own");
  }
  fs::path root_;
};

TEST_F(DirHandleTest, KindsAreThoseOfTheEntriesThemselves) {
  const auto folder = own();
  write_file(folder, "file", "x");
  folder.make_folder("folder");
  fs::create_symlink(root_ / "precious", root_ / "own" / "link");
  ASSERT_EQ(::mkfifo((root_ / "own" / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(folder.kind("file"), Kind::file);
  EXPECT_EQ(folder.kind("folder"), Kind::folder);
  EXPECT_EQ(folder.kind("link"), Kind::link);
  EXPECT_EQ(folder.kind("pipe"), Kind::other);
  EXPECT_EQ(folder.kind("none"), std::nullopt);
  EXPECT_EQ(folder.names().size(), 4u);
  EXPECT_EQ(folder.list()[1].name, "folder");
}

TEST_F(DirHandleTest, LinksAreNeitherReadNorEntered) {
  const auto folder = own();
  fs::create_symlink(root_ / "precious", root_ / "own" / "to-folder");
  fs::create_symlink(
      root_ / "precious" / "thesis.txt", root_ / "own" / "to-file");
  ASSERT_EQ(::mkfifo((root_ / "own" / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::corrupt, "to-folder is a link", [&] {
    folder.open_folder("to-folder");
  });
  expect_error(ErrorCode::corrupt, "to-folder is a link", [&] {
    folder.open_or_make_folder("to-folder");
  });
  expect_error(ErrorCode::corrupt, "to-file is a link", [&] {
    folder.read_file("to-file", 100);
  });
  expect_error(ErrorCode::corrupt, "to-file is a link", [&] {
    folder.open_file("to-file", O_RDWR | O_CREAT);
  });
  expect_error(
      ErrorCode::corrupt, "is a pipe", [&] { folder.read_file("pipe", 100); });
  expect_error(
      ErrorCode::not_found, "none", [&] { folder.open_folder("none"); });
}

TEST_F(DirHandleTest, OfALinkOnlyTheLinkIsRemoved) {
  const auto folder = own();
  const auto deep = folder.make_folder("a").make_folder("b");
  write_file(deep, "c", "x");
  fs::create_symlink(root_ / "precious", root_ / "own" / "a" / "b" / "link");
  fs::create_symlink(root_ / "precious", root_ / "own" / "link");
  folder.remove("link");
  folder.remove("a");
  folder.remove("none");
  EXPECT_TRUE(folder.names().empty());
}

TEST_F(DirHandleTest, AHandleStaysWithItsFolder) {
  const auto folder = own();
  EXPECT_TRUE(folder.is_in_place());
  fs::rename(root_ / "own", root_ / "moved");
  fs::create_directory_symlink(root_ / "precious", root_ / "own");
  EXPECT_FALSE(folder.is_in_place());
  write_file(folder, "thesis.txt", "new");
  folder.rename("thesis.txt", "other.txt");
  folder.remove("thesis.txt");
  EXPECT_EQ(read_file(root_ / "moved" / "other.txt", 9), "new");
  EXPECT_FALSE(fs::exists(root_ / "precious" / "other.txt"));
}

TEST_F(DirHandleTest, AFileIsStampedByWhenItWasWritten) {
  const auto path = root_ / "own" / "file";
  write_file(path, "one");
  const auto before = FileStamp::of(path);
  ASSERT_TRUE(before);
  EXPECT_EQ(before, FileStamp::of(path));
  fs::last_write_time(
      path, fs::last_write_time(path) + std::chrono::seconds(1));
  EXPECT_NE(before, FileStamp::of(path));
  EXPECT_TRUE(before->same_file(*FileStamp::of(path)));
  EXPECT_FALSE(FileStamp::of(root_ / "none"));
}

}  // namespace
}  // namespace pennyweight
