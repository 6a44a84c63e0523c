#include "pass/process_group.h"

#include <mlx/distributed/distributed.h>
#include <mlx/distributed/ops.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "core/error.h"
#include "core/json.h"
#include "ops/evaluated.h"

namespace pennyweight {

struct ProcessGroup::Group {
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

// mlx.launch's ring: a list with an entry for each process.
int count_hosts(const char* file) {
  auto hosts = read_json(file);
  return hosts.is_array() ? static_cast<int>(hosts.size()) : 0;
}

Launch find_launch() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    if (int size = number_of(variable); size > 1) {
      return {size, "mpi"};
    }
  }
  if (std::getenv("PMIX_RANK")) {  // srun --mpi=pmix
    if (int size = number_of("SLURM_STEP_NUM_TASKS"); size > 1) {
      return {size, "mpi"};
    }
  }
  if (!std::getenv("MLX_RANK")) {
    return {};
  }
  if (const char* hosts = std::getenv("MLX_HOSTFILE")) {
    return {count_hosts(hosts), "ring"};
  }
  if (int size = number_of("MLX_WORLD_SIZE"); size > 0) {
    return {size, std::getenv("NCCL_HOST_IP") ? "nccl" : "any"};
  }
  return {2, "any"};  // two at least: it does not say
}

mx::distributed::Group make_group(const Launch& launch) {
  std::string why = "it made a group of one";
  try {
    auto group = mx::distributed::init(false, launch.backend);
    if (group.size() > 1) {
      return group;
    }
  } catch (const std::exception& error) {
    why = one_line(error.what());
  }
  bool mpi = launch.backend == std::string("mpi");
  throw not_supported_error(
      "ranks",
      "several processes were launched but can't be connected by MLX's " +
          std::string(launch.backend) + " backend (" + why + "); " +
          (mpi ? "install Open MPI (libopenmpi-dev), or start one process"
               : "start them with mlx.launch or mpirun, or start one"));
}

bool launched_several = false;

}  // namespace

ProcessGroup::ProcessGroup() = default;
ProcessGroup::~ProcessGroup() = default;

void ProcessGroup::connect() {
  auto launch = find_launch();
  if (launch.size <= 1) {
    return;
  }
  auto group = make_group(launch);
  rank_ = group.rank();
  size_ = group.size();
  group_ = std::make_unique<Group>(Group{group});
  launched_several = true;
}

const ProcessGroup& ProcessGroup::world() {
  // Goes at exit, before what MLX keeps of its backends: MPI must be finalized.
  static ProcessGroup ranks;
  static const bool connected = [] {
    ranks.connect();
    return true;
  }();
  (void)connected;
  return ranks;
}

mx::array ProcessGroup::sum(const mx::array& x) const {
  if (!group_) {
    return x;
  }
  return evaluated(mx::distributed::all_sum(mx::contiguous(x), group_->mlx));
}

std::vector<double> ProcessGroup::sum(std::vector<double> values) const {
  for (double& value : values) {
    value = sum(value);
  }
  return values;
}

double ProcessGroup::sum(double x) const {
  if (!group_) {
    return x;
  }
  // As bits, since not every backend has float64; each rank then adds in the
  // same order.
  const auto bits = std::bit_cast<std::array<uint32_t, 2>>(x);
  auto all = evaluated(
      mx::distributed::all_gather(mx::array({bits[0], bits[1]}), group_->mlx));
  double total = 0;
  for (int i = 0; i < size_; ++i) {
    const uint32_t* pair = all.data<uint32_t>() + 2 * i;
    total += std::bit_cast<double>(std::array{pair[0], pair[1]});
  }
  return total;
}

void ProcessGroup::send(const mx::array& x, int to) const {
  mx::eval(mx::distributed::send(mx::contiguous(x), to, group_->mlx));
}

mx::array
ProcessGroup::receive(const mx::Shape& shape, mx::Dtype dtype, int from) const {
  return evaluated(mx::distributed::recv(shape, dtype, from, group_->mlx));
}

void ProcessGroup::barrier() const {
  sum(1.0);
}

void abandon_ranks(int exit_code) {
  if (launched_several) {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }
}

}  // namespace pennyweight
