#include "pass/process_group.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

// Set for the processes that a test here launches.
constexpr const char* kLaunched = "PENNYWEIGHT_TEST_LAUNCHED";
constexpr const char* kSelf = "/proc/self/exe";

int shell(const std::string& command) {
  return std::system(("exec > /dev/null; " + command).c_str());
}

// This program as one of several, doing the one test that sums.
std::string one_of_several() {
  return "timeout 60 env OMP_NUM_THREADS=1 " + std::string(kLaunched) + "=1 '" +
      fs::read_symlink(kSelf).string() +
      "' --gtest_filter=ProcessGroup.Launched";
}

TEST(ProcessGroup, Launched) {
  if (!std::getenv(kLaunched)) {
    GTEST_SKIP() << "only for those that other tests launch";
  }
  const ProcessGroup& ranks = ProcessGroup::world();
  ASSERT_EQ(ranks.size(), 2);
  ASSERT_LT(ranks.rank(), 2);
  EXPECT_EQ(ranks.first(), ranks.rank() == 0);
  auto mine = mx::full({3, 2}, ranks.first() ? 1.5f : 2.0f);
  // Transposed, since what is sent is not always contiguous.
  auto total = ranks.sum(mx::transpose(mine));
  EXPECT_EQ(total.shape(), (mx::Shape{2, 3}));
  EXPECT_TRUE(mx::all(mx::equal(total, mx::array(3.5f))).item<bool>());
  // Beyond what float32 holds.
  const double large = 4503599627370496.0;  // 2^52
  EXPECT_EQ(ranks.sum(ranks.first() ? large : 1.0), large + 1);
  ranks.barrier();
  EXPECT_EQ(&ProcessGroup::world(), &ranks);
}

TEST(ProcessGroup, OneProcessIsAlone) {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("MLX_RANK")) {
    GTEST_SKIP() << "launched with others";
  }
  const ProcessGroup& ranks = ProcessGroup::world();
  EXPECT_EQ(ranks.rank(), 0);
  EXPECT_EQ(ranks.size(), 1);
  EXPECT_TRUE(ranks.first());
  auto x = mx::array({1.0f, 2.0f});
  EXPECT_EQ(ranks.sum(x).id(), x.id());
  EXPECT_EQ(ranks.sum(0.1), 0.1);
  ranks.barrier();
  abandon_ranks(1);  // returns, there being nobody to abandon
}

// Each of two would do the whole work, on the same files.
TEST(ProcessGroupDeathTest, LaunchedButNotConnectedIsAnError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto world = [] {
    ::setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    ::setenv("MLX_MPI_LIBNAME", "libnone.so", 1);
    try {
      ProcessGroup::world();
    } catch (const Error& error) {
      std::cerr << error.what() << '\n';
      std::_Exit(error.code() == ErrorCode::not_supported ? 7 : 8);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(world(), ::testing::ExitedWithCode(7), "libopenmpi-dev");
}

TEST(ProcessGroup, SumsOverMpi) {
  if (shell("command -v mpirun timeout") != 0 || !fs::exists(kSelf)) {
    GTEST_SKIP() << "mpirun, timeout or /proc is missing";
  }
  std::string root = ::geteuid() == 0 ? " --allow-run-as-root" : "";
  EXPECT_EQ(
      shell(
          "mpirun --oversubscribe --bind-to none" + root + " -n 2 " +
          one_of_several()),
      0);
}

// Two ports that nobody had a moment ago.
std::string hosts_of_two() {
  int sockets[2];
  std::string hosts;
  for (int& s : sockets) {
    s = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(s, any, size) != 0 || ::getsockname(s, any, &size) != 0) {
      ADD_FAILURE() << "no port is free";
    }
    hosts += (hosts.empty() ? "[[\"127.0.0.1:" : "\"], [\"127.0.0.1:") +
        std::to_string(ntohs(address.sin_port));
  }
  for (int s : sockets) {
    ::close(s);
  }
  return hosts + "\"]]";
}

TEST(ProcessGroup, SumsOverARing) {
  if (shell("command -v timeout") != 0 || !fs::exists(kSelf)) {
    GTEST_SKIP() << "timeout or /proc is missing";
  }
  testing::TemporaryFolder folder;
  auto file = folder.path() / "hosts.json";
  std::ofstream(file) << hosts_of_two();
  auto run = "MLX_HOSTFILE=" + file.string() + " MLX_RANK=";
  EXPECT_EQ(
      shell(
          run + "0 " + one_of_several() + " & " + run + "1 " +
          one_of_several() + " && wait $!"),
      0);
}

}  // namespace
}  // namespace pennyweight
