#include "ops/ops.h"

#include <mlx/memory.h>
#include <mlx/ops.h>

#include "ops/primitive.h"

namespace pennyweight::ops {

void keep_freed_memory(size_t bytes) {
  if (uses_kernels()) {
    mx::set_cache_limit(bytes);
  }
}

mx::array slice_rows(const mx::array& x, int first, int count) {
  auto start = mx::Shape(x.ndim(), 0);
  auto stop = x.shape();
  start[0] = first;
  stop[0] = first + count;
  return mx::slice(x, start, stop);
}

mx::array cap_logits(const mx::array& logits, float cap) {
  if (cap == 0) {
    return logits;
  }
  const mx::array limit(cap);
  return limit * mx::tanh(logits / limit);
}

}  // namespace pennyweight::ops
