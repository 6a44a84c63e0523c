#include "ops/rounding/packed_rows.h"

#include <mlx/allocator.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cstring>
#include <utility>

#include "ops/evaluated.h"

namespace pennyweight {

mx::array unset(mx::Shape shape, mx::Dtype dtype) {
  size_t bytes = mx::size_of(dtype);
  for (int extent : shape) {
    bytes *= static_cast<size_t>(extent);
  }
  return mx::array(mx::allocator::malloc(bytes), std::move(shape), dtype);
}

void copy_rows(const mx::array& part, int first, mx::array& whole) {
  auto dense = evaluated(mx::contiguous(part));
  const size_t row = whole.nbytes() / static_cast<size_t>(whole.shape(0));
  std::memcpy(
      whole.data<char>() + static_cast<size_t>(first) * row,
      dense.data<char>(),
      dense.nbytes());
}

void PackedRows::put(int first, const ops::QuantizedWeight& part) {
  const auto like = [&](const mx::array& x) {
    auto shape = x.shape();
    shape[0] = rows_;
    return unset(std::move(shape), x.dtype());
  };
  if (!whole_) {
    whole_ = part;
    whole_->codes = like(part.codes);
    whole_->scales = like(part.scales);
    if (part.biases) {
      whole_->biases = like(*part.biases);
    }
  }
  copy_rows(part.codes, first, whole_->codes);
  copy_rows(part.scales, first, whole_->scales);
  if (part.biases) {
    copy_rows(*part.biases, first, *whole_->biases);
  }
}

ops::QuantizedWeight PackedRows::take() {
  auto whole = std::move(*whole_);
  whole_.reset();
  return whole;
}

}  // namespace pennyweight
