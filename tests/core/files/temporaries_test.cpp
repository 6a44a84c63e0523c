#include "core/files/temporaries.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "core/files/atomic_file.h"

#ifdef __SANITIZE_ADDRESS__
// Of libasan, whose header for it g++ does not bring.
extern "C" int __sanitizer_install_malloc_and_free_hooks(
    void (*)(const volatile void*, size_t),
    void (*)(const volatile void*));
#endif

namespace pennyweight {
namespace {

class Temporaries : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
        ("temporaries-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  void make(const std::string& name) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << "x";
  }
  bool there(const std::string& name) {
    return fs::exists(fs::symlink_status(folder_ / name));
  }

  fs::path folder_;
};

TEST_F(Temporaries, NamedFilesAndFoldersGo) {
  make("file");
  make("tree/a/b/c");
  make("tree/d");
  make("stays");
  fs::create_symlink(folder_ / "stays", folder_ / "tree/link");
  fs::create_directory_symlink(folder_, folder_ / "tree/a/up");
  Temporary file(folder_ / "file");
  Temporary tree(folder_ / "tree");
  Temporary absent(folder_ / "absent");
  remove_temporaries();
  EXPECT_FALSE(there("file"));
  EXPECT_FALSE(there("tree"));
  EXPECT_TRUE(there("stays"));
}

TEST_F(Temporaries, ReleasedNamesStay) {
  make("released");
  make("destroyed");
  make("moved");
  Temporary released(folder_ / "released");
  released.release();
  { Temporary destroyed(folder_ / "destroyed"); }
  Temporary moved(folder_ / "moved");
  Temporary to = std::move(moved);
  moved.release();
  remove_temporaries();
  EXPECT_TRUE(there("released"));
  EXPECT_TRUE(there("destroyed"));
  EXPECT_FALSE(there("moved"));
}

TEST_F(Temporaries, ParentsGoWhereNothingIsInThem) {
  make("a/b/c/file");
  make("full/other");
  std::vector<Temporary> named;
  for (const char* parent : {"a/b/c", "a/b", "a", "full"}) {
    named.emplace_back(folder_ / parent, Temporary::Kind::parent);
  }
  named.emplace_back(folder_ / "a/b/c/file");
  remove_temporaries();
  EXPECT_FALSE(there("a"));
  EXPECT_TRUE(there("full/other"));
}

TEST_F(Temporaries, OfAnotherProcessStay) {
  make("mine");
  Temporary mine(folder_ / "mine");
  const pid_t child = ::fork();
  if (child == 0) {
    remove_temporaries();
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(there("mine"));
}

// A signal that ends a run may have come within malloc(), whose lock is held
// then for good. macOS has no listing without it.
#if defined(__linux__) && defined(__SANITIZE_ADDRESS__)
int allocations = 0;

TEST_F(Temporaries, GoWithoutTheHeap) {
  for (int i = 0; i < 300; ++i) {  // more than one reading of a folder gives
    make("tree/deep/file-with-a-name-of-some-length-" + std::to_string(i));
  }
  Temporary tree(folder_ / "tree");
  __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, size_t) { ++allocations; },
      [](const volatile void*) {});
  make("other");
  ASSERT_GE(allocations, 1);
  const int before = allocations;
  remove_temporaries();
  EXPECT_EQ(allocations, before);
  EXPECT_FALSE(there("tree"));
}
#endif

TEST_F(Temporaries, UnfinishedOutputsAreNamed) {
  AtomicFile file(folder_ / "file");
  file.write("x");
  AtomicFolder output(folder_ / "a/b/out", false);
  make("a/b/" + output.path().filename().string() + "/model/shard");
  remove_temporaries();
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Temporaries, FinishedOutputsAreNot) {
  AtomicFile file(folder_ / "file");
  file.write("x");
  file.commit();
  AtomicFolder output(folder_ / "a/out", false);
  output.commit();
  remove_temporaries();
  EXPECT_TRUE(there("file"));
  EXPECT_TRUE(there("a/out"));
}

}  // namespace
}  // namespace pennyweight
