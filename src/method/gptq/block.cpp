#include "method/gptq/block.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>

#include "kernels/threads.h"
#include "method/gptq/group.h"

namespace pennyweight {

namespace {

using namespace gptq;

/// What the rounding of a block takes from one group to the next.
struct Rounding {
  BlockTask& task;
  const GptqOptions& options;
  std::vector<GptqVariant>& variants;
  BlockFigures& figures;

  InputStatistics statistics(const LinearGroup& group) const {
    return task.statistics(
        group,
        {.shifts = options.shift > 0,
         .experts_together = !options.expert_hessians});
  }
};

/// One group, on all threads.
void round_group(const Rounding& rounding, const LinearGroup& group) {
  auto& [task, options, variants, figures] = rounding;
  const auto& path = group.modules.front().path;
  const RunWork run = [&task](const auto& work) { task.overlap(work); };
  auto sums = take_sums(rounding.statistics(group), options);
  std::optional<GroupInputs> inputs;
  run([&] { inputs.emplace(factor_inputs(std::move(sums), options, path)); });
  note_inputs(path, damping_of(inputs->hessian), options, figures);
  for (const ModuleSpec& module : group.modules) {
    const auto dense = task.weight(module.path);
    quantize_module(
        task,
        module,
        dense.data<float>(),
        *inputs,
        variants,
        run,
        [&](size_t i, const GptqResult& result) {
          keep_result(task, module, result, variants[i]);
        });
    finish_module(task, module, variants);
  }
}

// Experts of a step that are rounded side by side: so many that threads share
// them well, and so narrow that one thread is no long time at one.
constexpr size_t kFewestExperts = 16;
constexpr int64_t kWidestExpert = 4096;

bool are_side_by_side(size_t experts, int64_t in) {
  return experts >= kFewestExperts && in <= kWidestExpert;
}

// What experts that are rounded side by side may hold while they wait for a
// thread, one for each at least: more than there are threads, since some take
// longer than others.
constexpr int64_t kWaiting = int64_t{256} << 20;

/// Bytes of one of them.
struct ExpertBytes {
  int64_t waiting = 0;
  int64_t working = 0;  // beside that, while it has a thread
};

/// `weights` of its linears, of which `results` are kept.
ExpertBytes bytes_of(
    int64_t in,
    int64_t weights,
    const GptqOptions& options,
    int64_t results) {
  const int64_t square = 4 * in * in;
  const int64_t sums = options.shift > 0 ? 2 : 1;
  // The weights in float32, and of each result codes and grids; a copy of the
  // sums and the factor, and rows that are shifted, some hundred at a time.
  return {
      sums * square + 4 * weights + results * weights * 5 / 4,
      (sums + 1) * square + 4 * 4 * 256 * in};
}

int64_t experts_at_once(int64_t count, const ExpertBytes& bytes) {
  return std::min(
      count,
      std::max<int64_t>(kernels::thread_count(), kWaiting / bytes.waiting));
}

/// The groups of experts from the first on that belong to its step; empty
/// where it is none.
std::span<const LinearGroup> experts_of_step(
    std::span<const LinearGroup> groups) {
  const auto end = std::ranges::find_if(groups, [&](const LinearGroup& group) {
    return !group.modules.front().expert || group.step != groups.front().step;
  });
  return groups.first(size_t(end - groups.begin()));
}

/// An expert's group that one thread rounds.
struct ExpertWork {
  const LinearGroup& group;
  InputStatistics sums;          // settled
  std::vector<mx::array> dense;  // of each module
  Damping damping{};
  std::vector<std::vector<GptqResult>> results{};  // by module and variant

  void round(const Rounding& rounding) {
    // Of one expert, too, so that its bits do not depend on how many are
    // rounded at once.
    const kernels::Task alone;
    const auto inputs = factor_inputs(
        copy_sums(sums, rounding.options),
        rounding.options,
        group.modules.front().path);
    damping = damping_of(inputs.hessian);
    for (size_t m = 0; m < dense.size(); ++m) {
      auto& own = results.emplace_back(rounding.variants.size());
      quantize_module(
          rounding.task,
          group.modules[m],
          std::as_const(dense[m]).data<float>(),
          inputs,
          rounding.variants,
          [](const auto& work) { work(); },
          [&](size_t i, GptqResult result) { own[i] = std::move(result); });
    }
  }
};

/// Experts, each on one thread: their own problems are too small for several.
/// All that is MLX's is done before and after, by this thread.
void round_experts(
    const Rounding& rounding,
    std::span<const LinearGroup> groups) {
  auto& [task, options, variants, figures] = rounding;
  int64_t weights = 0;
  for (const ModuleSpec& module : groups.front().modules) {
    weights += module.in * module.out;
  }
  const auto bytes = bytes_of(
      groups.front().modules.front().in,
      weights,
      options,
      int64_t(variants.size()));
  const auto together = size_t(experts_at_once(int64_t(groups.size()), bytes));
  for (size_t first = 0; first < groups.size(); first += together) {
    std::vector<ExpertWork> works;
    for (const LinearGroup& group :
         groups.subspan(first, std::min(together, groups.size() - first))) {
      works.push_back({group, settled(rounding.statistics(group)), {}});
      for (const ModuleSpec& module : group.modules) {
        works.back().dense.push_back(task.weight(module.path));
      }
    }
    task.overlap([&] {
      kernels::parallel_tasks(int64_t(works.size()), [&](int64_t i) {
        works[size_t(i)].round(rounding);
      });
    });
    for (const ExpertWork& work : works) {
      note_inputs(
          work.group.modules.front().path, work.damping, options, figures);
      for (size_t m = 0; m < work.dense.size(); ++m) {
        const ModuleSpec& module = work.group.modules[m];
        for (size_t i = 0; i < variants.size(); ++i) {
          if (!variants[i].nearest) {
            keep_result(task, module, work.results[m][i], variants[i]);
          }
        }
        finish_module(task, module, variants);
      }
    }
  }
}

}  // namespace

void round_groups(
    BlockTask& task,
    const GptqOptions& options,
    std::vector<GptqVariant>& variants,
    BlockFigures& figures) {
  const Rounding rounding{task, options, variants, figures};
  for (std::span<const LinearGroup> left = task.groups(); !left.empty();) {
    const auto experts = experts_of_step(left);
    if (are_side_by_side(experts.size(), left.front().modules.front().in)) {
      round_experts(rounding, experts);
      left = left.subspan(experts.size());
    } else {
      round_group(rounding, left.front());
      left = left.subspan(1);
    }
  }
}

int64_t side_by_side_bytes(
    const BlockSpec& block,
    const GptqOptions& options,
    int64_t results) {
  // Of one expert's group, and how many there are, by what they read.
  struct Group {
    size_t count = 0;
    int64_t in = 0;
    int64_t weights = 0;
  };
  std::map<BlockInput, Group> groups;
  for (const ModuleSpec& module : list_modules(block)) {
    if (module.expert && !module.published) {
      auto& own = groups[module.input];
      own.count = std::max(own.count, size_t(module.part) + 1);
      own.in = module.in;
      own.weights += module.part == 0 ? module.in * module.out : 0;
    }
  }
  int64_t most = 0;
  for (const auto& [input, own] : groups) {
    if (!are_side_by_side(own.count, own.in)) {
      continue;
    }
    const auto bytes = bytes_of(own.in, own.weights, options, results);
    const int64_t together = experts_at_once(int64_t(own.count), bytes);
    most = std::max(
        most,
        together * bytes.waiting +
            std::min<int64_t>(together, kernels::thread_count()) *
                bytes.working);
  }
  return most;
}

}  // namespace pennyweight
