#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "method/gptq/block.h"

/// What block.cpp does with one group of linears that read one input.
namespace pennyweight::gptq {

/// One group's statistics as plain numbers.
struct GroupSums {
  int64_t columns = 0;
  std::vector<float> hessian, input_shift, output_shift;
};

/// The same in the form that gptq_quantize takes.
struct GroupInputs {
  GptqHessian hessian;
  std::vector<float> input_shift, output_shift;

  GptqShift shift() const {
    GptqShift shift;
    shift.input = input_shift.empty() ? nullptr : input_shift.data();
    shift.output = output_shift.empty() ? nullptr : output_shift.data();
    return shift;
  }
};

/// The sums are let go one by one, once they are copied: those of wide inputs
/// are the most that a block holds.
GroupSums take_sums(InputStatistics sums, const GptqOptions& options);

/// Evaluated and without gaps, to be read as plain numbers.
InputStatistics settled(InputStatistics sums);
/// Of settled ones, which stay. Leaves MLX alone.
GroupSums copy_sums(const InputStatistics& sums, const GptqOptions& options);

/// Errors as GptqHessian's, which name `path`. Leaves MLX alone.
GroupInputs factor_inputs(
    GroupSums sums,
    const GptqOptions& options,
    const std::string& path);

/// What a user should know of a group's inputs.
struct Damping {
  double damp = 0;
  int64_t dead_inputs = 0;
};

Damping damping_of(const GptqHessian& hessian);
void note_inputs(
    const std::string& path,
    const Damping& damping,
    const GptqOptions& options,
    BlockFigures& figures);

/// Takes the result of a variant, by its place among them.
using KeepResult = std::function<void(size_t variant, GptqResult result)>;

/// Calls `work`, at once or on another thread, and returns when it is done.
using RunWork = std::function<void(const std::function<void()>& work)>;

/// The module in each variant but rounding to nearest. May be called by several
/// threads at once: what it gives to `run` leaves MLX alone, and it uses no
/// MLX itself.
void quantize_module(
    const BlockTask& task,
    const ModuleSpec& module,
    const float* dense,
    const GroupInputs& inputs,
    const std::vector<GptqVariant>& variants,
    const RunWork& run,
    const KeepResult& keep);

/// Packs a variant's result.
void keep_result(
    const BlockTask& task,
    const ModuleSpec& module,
    const GptqResult& result,
    GptqVariant& variant);

/// Rounds to nearest where a variant does, and sets the first one's.
void finish_module(
    BlockTask& task,
    const ModuleSpec& module,
    std::vector<GptqVariant>& variants);

}  // namespace pennyweight::gptq
