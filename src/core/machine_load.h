#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pennyweight {

/// Processors of this machine, and how many of them others keep busy.
struct MachineLoad {
  int cores = 1;
  double others = 0;  // cores that are not this process's work
};

/// Watches from its making on.
class LoadMeter {
 public:
  LoadMeter();
  /// Since then. Where the system does not count its processors' time, others
  /// is the load average less the threads that this process has kept busy.
  MachineLoad load() const;

 private:
  double wall_;
  double own_;
  double busy_;
};

/// How far samples of one thing lie apart: half of the range that the middle
/// half of them takes, as a share of their median.
double spread_of(std::vector<double> samples);

/// What a user should know of times that were measured under this load by so
/// many threads, with samples that far apart; empty where nothing is wrong.
std::string describe_load(const MachineLoad& load, int threads, double spread);

/// How much faster work on so many threads would be if nobody else worked: 1 or
/// more.
double slowdown(const MachineLoad& load, int threads);

}  // namespace pennyweight
