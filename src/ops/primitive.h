#pragma once

#include <mlx/primitives.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

/// What ops are made of. An op is one function, which checks its arguments and
/// makes an Op: how the result is made of MLX's own ops, how kernels fill it on
/// a CPU, and what its gradients are.
namespace pennyweight::ops {

using Arrays = std::vector<mx::array>;

/// One evaluation of an op on a CPU: it shows the inputs as kernels take them
/// and gives the result its memory. An input that does not lie as it is asked
/// for is copied first, by the stream.
class CpuWork {
 public:
  CpuWork(const Arrays& inputs, mx::array& out, mx::Stream stream)
      : inputs_(inputs), out_(out), stream_(stream) {}

  size_t count() const {
    return inputs_.size();
  }
  int size(size_t i, int axis) const {
    return inputs_[i].shape(axis);
  }
  bool are_one(size_t i, size_t j) const {
    return inputs_[i].id() == inputs_[j].id();
  }
  /// Number of rows and columns of an input seen as rows of its last axis.
  int64_t rows(size_t i) const;
  int64_t columns(size_t i) const;

  /// [rows, columns], all rows at one stride.
  kernels::ConstMatrix matrix(size_t i);
  /// Without any gap.
  kernels::ConstVector vector(size_t i);
  template <class T>
  const T* data(size_t i) {
    return static_cast<const T*>(vector(i).data);
  }
  /// [batch, rows, heads, size], sizes contiguous; or [batch, rows, size].
  kernels::HeadsView heads(size_t i);
  kernels::DType type(size_t i) const;

  /// The result, in memory of its own.
  kernels::Matrix result();
  /// In the memory of the first of these inputs that is of the same type and
  /// size and that nobody else needs; else in memory of its own.
  kernels::Matrix result_over(std::initializer_list<size_t> inputs);
  /// Holding what input i holds, in whose memory it is where nobody else needs
  /// that; else the task begins with a copy.
  kernels::Matrix result_from(size_t i);
  /// Holding zeros, which the task begins with.
  kernels::Matrix zeros();
  /// Where the result's values begin, once it has memory.
  template <class T>
  T* out() {
    return out_.data<T>();
  }
  int64_t out_size() const {
    return int64_t(out_.size());
  }
  size_t out_bytes() const {
    return out_.nbytes();
  }
  int out_size(int axis) const {
    return out_.shape(axis);
  }
  kernels::DType out_type() const;

  /// What the task begins with; empty where that is nothing.
  std::function<void()> beginning() {
    return std::move(beginning_);
  }

 private:
  mx::array copied(const mx::array& x);
  mx::array dense(size_t i);

  const Arrays& inputs_;
  mx::array& out_;
  mx::Stream stream_;
  std::function<void()> beginning_;
};

/// Fills a result. It outlives its CpuWork: it holds values and pointers.
using Task = std::function<void()>;

/// The gradient of a loss by input i; nothing else is computed.
using GradientOf = std::function<mx::array(size_t i)>;

/// An op's inputs, settings and implementations. The functions may hold its
/// settings, but no arrays: inputs would not be free for the result.
struct Op {
  const char* name;
  mx::Shape shape;  // of the result
  mx::Dtype dtype;
  Arrays inputs;
  /// The result made of MLX's own ops: what a GPU runs. An op that only a vjp
  /// makes, which a GPU has no need of, may be without it.
  std::function<mx::array(const Arrays& inputs)> fallback = {};
  /// The result by kernels.
  std::function<Task(CpuWork& work)> cpu = {};
  /// Gradients of what ran on a CPU, given that by the result. Without it they
  /// are a not_supported Error: for what only measures.
  std::function<GradientOf(const Arrays& inputs, const mx::array& dy)> vjp = {};
};

/// The op's result: lazy, as any of MLX's.
mx::array make(Op op);

/// A vjp by way of the fallback's, for what is not worth kernels of its own.
GradientOf gradient_through(
    const std::function<mx::array(const Arrays&)>& fallback,
    const Arrays& inputs,
    const mx::array& dy);

/// not_supported Error for a gradient that there is none of.
[[noreturn]] void no_gradient(const char* op, const std::string& what);

/// As long as one lives, ops that its thread makes are their fallbacks: for
/// tests of what a GPU runs.
class FallbacksOnly {
 public:
  FallbacksOnly();
  ~FallbacksOnly();
  FallbacksOnly(const FallbacksOnly&) = delete;
  FallbacksOnly& operator=(const FallbacksOnly&) = delete;

 private:
  bool before_;
};

/// Whether ops are made of kernels here: the default device is a CPU.
bool uses_kernels();

/// Entry i of x along its first axis, without that axis.
mx::array part_of(const mx::array& x, int i);
mx::array as_float32(const mx::array& x);
/// x's shape with another last axis.
mx::Shape with_last(const mx::array& x, int last);

kernels::DType kernel_type(mx::Dtype dtype);

/// x [..., columns], whose rows are at one stride.
kernels::ConstMatrix matrix_of(const mx::array& x);

}  // namespace pennyweight::ops
