#pragma once

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/access.h"
#include "kernels/dispatch.h"

namespace pennyweight::kernels {

/// An implementation, and for Highway's the instruction set to force.
struct Variant {
  Choice choice;
  int64_t target = 0;
};

inline std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (Choice choice : available_choices()) {
#ifdef __SANITIZE_ADDRESS__
    // Its memory is that of `onednn`, and the library itself is not watched.
    if (choice == Choice::onednn_f32) {
      continue;
    }
#endif
    if (choice != Choice::simd) {
      all.push_back({choice});
      continue;
    }
    for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
      // Of what the library knows, what our kernels are compiled for.
      if (target == HWY_AVX2 || target == HWY_AVX3 || target == HWY_NEON) {
        all.push_back({choice, target});
      }
    }
  }
  return all;
}

inline std::string variant_name(
    const ::testing::TestParamInfo<Variant>& variant) {
  std::string name{choice_name(variant.param.choice)};
  if (variant.param.target != 0) {
    name += std::string("_") + hwy::TargetName(variant.param.target);
  }
  return name;
}

/// Runs each test once per implementation and instruction set.
class KernelTest : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    if (GetParam().target != 0) {
      hwy::SetSupportedTargetsForTest(GetParam().target);
      hwy::GetChosenTarget().Update(GetParam().target);
    }
  }

  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }

  const Implementation& kernels() const {
    return implementation(GetParam().choice);
  }
};

#define INSTANTIATE_KERNEL_TEST(name) \
  INSTANTIATE_TEST_SUITE_P(           \
      Each, name, ::testing::ValuesIn(variants()), variant_name)

inline std::string type_name(DType type) {
  return type == DType::f32 ? "f32" : type == DType::bf16 ? "bf16" : "f16";
}

/// Largest relative error of rounding to the nearest value of a type: half
/// the distance of neighbours, for 24, 8 and 11 significant bits.
inline double rounding(DType type) {
  return type == DType::f32 ? 0x1p-24 : type == DType::bf16 ? 0x1p-8 : 0x1p-11;
}

/// What rounding may cost near zero: half the smallest subnormal of float16.
inline double rounding_floor(DType type) {
  return type == DType::f16 ? 0x1p-25 : 0x1p-140;
}

/// A row-major tensor with gaps between its rows, whose gaps must stay as
/// they are.
class Tensor {
 public:
  Tensor(DType type, int64_t rows, int64_t columns, int64_t gap = 0)
      : type_(type),
        rows_(rows),
        columns_(columns),
        stride_(columns + gap),
        bytes_(size_t(rows * stride_) * size_of(type), kUntouched) {}

  static Tensor random(
      DType type,
      int64_t rows,
      int64_t columns,
      unsigned seed,
      double scale = 1.0,
      int64_t gap = 0) {
    Tensor x(type, rows, columns, gap);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0f, float(scale));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        x.set(i, j, normal(generator));
      }
    }
    return x;
  }

  int64_t rows() const {
    return rows_;
  }
  int64_t columns() const {
    return columns_;
  }
  int64_t stride() const {
    return stride_;
  }
  DType type() const {
    return type_;
  }
  void* data() {
    return bytes_.data();
  }
  const void* data() const {
    return bytes_.data();
  }
  float at(int64_t i, int64_t j) const {
    return load_at(bytes_.data(), type_, i * stride_ + j);
  }
  void set(int64_t i, int64_t j, float value) {
    store_at(bytes_.data(), type_, i * stride_ + j, value);
  }
  ConstMatrix view() const {
    return {bytes_.data(), type_, stride_};
  }
  Matrix out() {
    return {bytes_.data(), type_, stride_};
  }

  void expect_gaps_untouched() const {
    const size_t size = size_of(type_);
    for (int64_t i = 0; i < rows_; ++i) {
      for (size_t b = size_t(i * stride_ + columns_) * size;
           b < size_t((i + 1) * stride_) * size;
           ++b) {
        ASSERT_EQ(bytes_[b], kUntouched) << "behind row " << i;
      }
    }
  }

 private:
  static constexpr char kUntouched = 0x5a;
  DType type_;
  int64_t rows_, columns_, stride_;
  std::vector<char> bytes_;
};

/// |actual - expected| <= rounding of the type + `slack` of float32 sums.
inline void expect_close(
    double actual,
    double expected,
    DType type,
    double slack,
    const std::string& what) {
  const double allowed = rounding(type) * (std::abs(expected) + slack) +
      rounding_floor(type) + slack;
  ASSERT_LE(std::abs(actual - expected), allowed)
      << what << ": " << actual << " instead of " << expected;
}

}  // namespace pennyweight::kernels
