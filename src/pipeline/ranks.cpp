#include "pipeline/ranks.h"

#include <mlx/distributed/distributed.h>
#include <mlx/distributed/ops.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace pennyweight {

struct Ranks::Group {
  mx::distributed::Group mlx;
};

namespace {

int number_of(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? std::atoi(value) : 0;
}

// What a launcher says of itself, and MLX's name for its backend.
struct Launch {
  int size = 1;
  const char* backend = "any";
};

Launch find_launch() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    if (int size = number_of(variable); size > 1) {
      return {size, "mpi"};
    }
  }
  // mlx.launch sets these for its ring and NCCL; their count is in a file.
  if (std::getenv("MLX_RANK")) {
    return {2, std::getenv("NCCL_HOST_IP") ? "nccl" : "any"};
  }
  return {};
}

bool launched_several = false;

}  // namespace

Ranks::Ranks() = default;
Ranks::~Ranks() = default;

void Ranks::connect() {
  auto launch = find_launch();
  if (launch.size <= 1) {
    return;
  }
  auto group = mx::distributed::init(false, launch.backend);
  if (group.size() <= 1) {
    throw Error(
        ErrorCode::not_supported,
        "ranks",
        "several processes were launched but can't be connected by MLX's " +
            std::string(launch.backend) +
            " backend; install Open MPI (libopenmpi-dev), or start one "
            "process");
  }
  rank_ = group.rank();
  size_ = group.size();
  group_ = std::make_unique<Group>(Group{group});
  launched_several = true;
}

const Ranks& Ranks::world() {
  // Goes at exit, before what MLX keeps of its backends: MPI must be finalized.
  static Ranks ranks;
  static const bool connected = [] {
    ranks.connect();
    return true;
  }();
  (void)connected;
  return ranks;
}

mx::array Ranks::sum(const mx::array& x) const {
  if (!group_) {
    return x;
  }
  auto total = mx::distributed::all_sum(
      mx::contiguous(x), group_->mlx, mx::Device(mx::Device::cpu));
  mx::eval(total);
  return total;
}

double Ranks::sum(double x) const {
  if (!group_) {
    return x;
  }
  // In two parts, so that the count of tokens stays exact.
  const auto high = static_cast<float>(x);
  const auto low = static_cast<float>(x - static_cast<double>(high));
  const auto total = sum(mx::array({high, low}));
  return double(total.data<float>()[0]) + double(total.data<float>()[1]);
}

void Ranks::barrier() const {
  sum(1.0);
}

void abandon_ranks(int exit_code) {
  if (launched_several) {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }
}

}  // namespace pennyweight
