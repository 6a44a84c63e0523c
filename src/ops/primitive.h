#pragma once

#include <mlx/primitives.h>

#include <functional>
#include <optional>
#include <vector>

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

/// What the CPU's primitives share.
namespace pennyweight::ops {

/// A primitive with one output that runs on a CPU stream. eval_cpu asks
/// plan() for the work, on the thread that evaluates, and queues it on MLX's
/// stream. The task outlives the primitive, so it holds values and pointers,
/// never `this`.
class CpuPrimitive : public mx::UnaryPrimitive {
 public:
  using Task = std::function<void()>;

  explicit CpuPrimitive(mx::Stream stream) : mx::UnaryPrimitive(stream) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override;
  void eval_gpu(const std::vector<mx::array>& inputs, mx::array& out) override;
  /// not_supported Error, for what only measures; others override it.
  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>& outputs) override;

 protected:
  /// Gives `out` its memory and returns what fills it.
  virtual Task plan(const std::vector<mx::array>& inputs, mx::array& out) = 0;

  /// Gives `out` what it goes on from: the memory of `sum` where nothing else
  /// needs that, else its own, into which copy() brings the values.
  struct Continued {
    const void* from;
    void* to;
    size_t bytes;

    void copy() const;
  };
  Continued go_on(const mx::array& sum, mx::array& out);

  /// `x` with its last axis contiguous and all rows at one stride: x itself
  /// where it is so, else a copy that the stream makes first.
  mx::array with_even_rows(const mx::array& x);
  /// `x` without any gap.
  mx::array without_gaps(const mx::array& x);
  /// `x` with its last axis contiguous, other strides as they are.
  mx::array with_dense_last_axis(const mx::array& x);

 private:
  mx::array copied(const mx::array& x);
};

/// vjp() of one result by way of the same function made of MLX's ops: for
/// what is not worth kernels of its own.
std::vector<mx::array> vjp_through(
    const std::function<mx::array(const std::vector<mx::array>&)>& function,
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& cotangents,
    const std::vector<int>& argnums);

/// The stream of the default device if that is a CPU.
std::optional<mx::Stream> cpu_stream();

/// Memory for `out`, row-contiguous, from a cache line's start: MLX's own
/// allocations lie 8 bytes behind one, which costs a third of AMX's rate.
void allocate(mx::array& out);

kernels::DType kernel_type(mx::Dtype dtype);

/// Number of rows and columns of x seen as rows of its last axis.
int64_t row_count(const mx::array& x);
int64_t column_count(const mx::array& x);

/// x [..., columns], which with_even_rows gave.
kernels::ConstMatrix matrix_of(const mx::array& x);
kernels::Matrix matrix_of(mx::array& out);
kernels::ConstVector vector_of(const mx::array& x);
/// x [batch, rows, heads, size], sizes contiguous.
kernels::HeadsView heads_view(const mx::array& x);

}  // namespace pennyweight::ops
