#pragma once

#include <mlx/array.h>

#include <memory>

namespace pennyweight {

namespace mx = mlx::core;

/// The processes that share a run: those that mpirun (or mlx.launch, for ring
/// and NCCL) has started, else this one alone.
class ProcessGroup {
 public:
  /// One process.
  ProcessGroup();
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  /// Those of this run, connected on the first call. not_supported Error
  /// where a launcher has started several that can't be connected: they would
  /// each do the whole work.
  static const ProcessGroup& world();

  int rank() const {
    return rank_;
  }
  int size() const {
    return size_;
  }
  bool first() const {
    return rank_ == 0;
  }

  /// The sum over all ranks, evaluated, of a float32 array whose shape is the
  /// same on each.
  mx::array sum(const mx::array& x) const;
  /// In float64, added in the order of the ranks.
  double sum(double x) const;
  std::vector<double> sum(std::vector<double> values) const;
  /// To one other rank, which receives it in the shape and type that it
  /// expects; returns when it is on its way.
  void send(const mx::array& x, int to) const;
  mx::array receive(const mx::Shape& shape, mx::Dtype dtype, int from) const;
  /// Runs f on the first rank, and when that is through on the others.
  template <class F>
  void first_then_others(F&& f) const {
    for (bool turn : {true, false}) {
      if (turn == first()) {
        f();
      }
      barrier();
    }
  }
  /// Returns when all ranks have come here.
  void barrier() const;

 private:
  struct Group;

  void connect();

  std::unique_ptr<Group> group_;  // null: one process
  int rank_ = 0;
  int size_ = 1;
};

/// Ends this process without a farewell to the other ranks, whom the launcher
/// then ends: an orderly exit would wait for them, who wait for this one. Does
/// nothing where there is one process.
void abandon_ranks(int exit_code);

}  // namespace pennyweight
