#include "kernels/dispatch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

std::string choice_with(const char* value) {
  setenv("PENNYWEIGHT_KERNEL", value, 1);
  try {
    return std::string(choice_name(active_choice()));
  } catch (const Error& error) {
    return error.what();
  }
}

// The variable is read once a process, so each value gets its own.
void expect_choice(const char* value, const char* expected) {
  EXPECT_EXIT(
      {
        const auto got = choice_with(value);
        std::exit(got.find(expected) != std::string::npos ? 0 : 1);
      },
      ::testing::ExitedWithCode(0),
      "")
      << value;
}

TEST(DispatchDeathTest, VariableForcesAChoice) {
  for (Choice choice : available_choices()) {
    const std::string name{choice_name(choice)};
    expect_choice(name.c_str(), name.c_str());
  }
  expect_choice("mlx", "mlx");
}

TEST(DispatchDeathTest, OtherValuesAreErrors) {
  expect_choice(
      "fast",
      "is 'fast'; set it to reference, simd, blas, onednn, onednn_f32 or mlx");
}

TEST(Dispatch, BestByDefaultAndOverride) {
  if (std::getenv("PENNYWEIGHT_KERNEL") == nullptr) {
    EXPECT_EQ(active_choice(), available_choices().back());
  }
  override_choice(Choice::reference);
  EXPECT_EQ(active_choice(), Choice::reference);
  override_choice({});
  EXPECT_FALSE(target_name(active_choice()).empty());
}

TEST(Threads, EachTaskOnceAndErrorsComeBack) {
  std::atomic<int64_t> sum{0};
  parallel_tasks(1000, [&](int64_t task) { sum += task; });
  EXPECT_EQ(sum, 999 * 1000 / 2);
  sum = 0;
  parallel_ranges(
      1000, 7, [&](int64_t begin, int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 1000);
  EXPECT_THROW(
      parallel_tasks(
          100,
          [](int64_t task) {
            if (task == 50) {
              throw std::runtime_error("task");
            }
          }),
      std::runtime_error);
}

}  // namespace

}  // namespace pennyweight::kernels
