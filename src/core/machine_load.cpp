#include "core/machine_load.h"
#include "core/text.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>

namespace pennyweight {

namespace {

// A tenth of a core is what a system does by itself.
constexpr double kIdle = 0.15;
// Samples of an idle machine lie within a few percent.
constexpr double kSteady = 0.1;

double seconds_of(const timeval& time) {
  return double(time.tv_sec) + 1e-6 * double(time.tv_usec);
}

double wall_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

double own_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

/// Of all processors; negative where the system does not say.
double busy_seconds() {
  std::ifstream file("/proc/stat");
  std::string name;
  // user, nice, system, idle, iowait, irq, softirq, steal
  double ticks[8] = {};
  if (!(file >> name) || name != "cpu") {
    return -1;
  }
  double busy = 0;
  for (int i = 0; i < 8; ++i) {
    if (!(file >> ticks[i])) {
      return -1;
    }
    // What is nice gives way.
    busy += i == 1 || i == 3 || i == 4 ? 0 : ticks[i];
  }
  return busy / double(sysconf(_SC_CLK_TCK));
}

}  // namespace

LoadMeter::LoadMeter()
    : wall_(wall_seconds()), own_(own_seconds()), busy_(busy_seconds()) {}

MachineLoad LoadMeter::load() const {
  MachineLoad load;
  load.cores = static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  const double wall = std::max(1e-3, wall_seconds() - wall_);
  const double own = (own_seconds() - own_) / wall;
  const double busy = busy_seconds();
  if (busy >= 0 && busy_ >= 0) {
    load.others = std::max(0.0, (busy - busy_) / wall - own);
    return load;
  }
  double average = 0;
  if (getloadavg(&average, 1) == 1) {
    load.others = std::max(0.0, average - own);
  }
  return load;
}

double spread_of(std::vector<double> samples) {
  if (samples.size() < 2) {
    return 0;
  }
  std::sort(samples.begin(), samples.end());
  const size_t last = samples.size() - 1;
  const double middle = samples[samples.size() / 2];
  return middle > 0
      ? (samples[last - last / 4] - samples[last / 4]) / (2 * middle)
      : 0;
}

double slowdown(const MachineLoad& load, int threads) {
  const double free = std::max(0.0, load.cores - load.others);
  return std::max(1.0, threads / std::max(free, 0.25 * threads));
}

std::string describe_load(const MachineLoad& load, int threads, double spread) {
  const double free = load.cores - load.others;
  if (load.others > kIdle && free < threads) {
    return formatted(
        "the machine is busy: other programs keep %.1f of its %d cores; "
        "estimates are of what is left",
        load.others,
        load.cores);
  }
  if (spread > kSteady) {
    return formatted(
        "the machine is not steady: the same work took %.0f %% more or less "
        "from one moment to the next",
        100 * spread);
  }
  return {};
}

}  // namespace pennyweight
