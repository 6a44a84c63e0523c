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

/// One evaluation of an op on a CPU. It shows the inputs as kernels take them,
/// and gives the result its memory. An input whose strides are not those that
/// are asked for is copied first: the copy is a task of the stream, too.
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
  /// Whether inputs i and j are one array.
  bool are_one(size_t i, size_t j) const {
    return inputs_[i].id() == inputs_[j].id();
  }
  /// The number of rows and columns of an input as a matrix: its last axis are
  /// the columns.
  int64_t rows(size_t i) const;
  int64_t columns(size_t i) const;

  /// Input i as a matrix, with one stride from each row to the next.
  kernels::ConstMatrix matrix(size_t i);
  /// Input i without gaps between its values.
  kernels::ConstVector vector(size_t i);
  template <class T>
  const T* data(size_t i) {
    return static_cast<const T*>(vector(i).data);
  }
  /// Input i as [batch, rows, heads, size], or [batch, rows, size], its last
  /// axis contiguous.
  kernels::HeadsView heads(size_t i);
  kernels::DType type(size_t i) const;

  // The result, to be asked for once, after the inputs whose memory it may
  // take.

  /// Memory of its own, which holds nothing yet.
  kernels::Matrix result();
  /// The memory of the first of these inputs that has the result's type and
  /// size and that nobody else needs; else memory of its own.
  kernels::Matrix result_over(std::initializer_list<size_t> inputs);
  /// Memory that holds the values of input i when the task runs: the input's
  /// own where nobody else needs it.
  kernels::Matrix result_from(size_t i);
  /// Memory that holds zeros when the task runs.
  kernels::Matrix zeros();
  int64_t out_size() const {
    return int64_t(out_.size());
  }
  int out_size(int axis) const {
    return out_.shape(axis);
  }
  kernels::DType out_type() const;

  /// What fills the result's memory before the task runs; empty where nothing
  /// has to.
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

/// Fills a result. It runs after its CpuWork is gone, so it holds values and
/// pointers only.
using Task = std::function<void()>;

/// Gives the gradient of a loss by an op's input i.
using GradientOf = std::function<mx::array(size_t i)>;

/// An op: its result's shape and type, its inputs and its implementations.
/// These functions may hold the op's settings but no arrays: an input that they
/// hold would never be free for the result.
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
  /// The gradients of what kernels made, given dy, that by the result. Nothing
  /// is computed of a gradient that is not asked for. Ops that only measure
  /// have no vjp: asking for a gradient is a not_supported Error.
  std::function<GradientOf(const Arrays& inputs, const mx::array& dy)> vjp = {};
};

/// The op's result, lazy as that of any of MLX's ops.
mx::array make(Op op);

/// Gradients by MLX's vjp of the fallback, for ops whose gradients are not
/// worth a kernel.
GradientOf gradient_through(
    const std::function<mx::array(const Arrays&)>& fallback,
    const Arrays& inputs,
    const mx::array& dy);

/// Throws the not_supported Error of a gradient that an op does not have.
[[noreturn]] void no_gradient(const char* op, const std::string& what);

/// Whether ops run kernels here: the default device is a CPU, and the choice is
/// not mlx (see kernels/dispatch.h).
bool uses_kernels();

/// Entry i of x along its first axis, without that axis.
mx::array part_of(const mx::array& x, int i);
mx::array as_float32(const mx::array& x);
/// x's shape with another last axis.
mx::Shape with_last(const mx::array& x, int last);

kernels::DType kernel_type(mx::Dtype dtype);

/// x [..., columns] as a matrix; its rows have to be at one stride.
kernels::ConstMatrix matrix_of(const mx::array& x);

}  // namespace pennyweight::ops
