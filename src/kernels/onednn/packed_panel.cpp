#ifdef PENNYWEIGHT_HAVE_ONEDNN

#include "kernels/onednn/packed_panel.h"

#include <algorithm>
#include <cstring>

#include "kernels/onednn/pack_pairs.h"
#include "kernels/onednn/product.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels::onednn {

int64_t depth_step(DType type) {
  return type == DType::bf16 ? kPackedDepth : 16;
}

void transpose_to_float(
    int64_t rows,
    int64_t columns,
    const ConstMatrix& x,
    float* to,
    int64_t stride) {
  // Transposed before it is converted, while its type is narrow. From row to
  // row there is an odd number of cache lines, so that rows do not share places
  // in the nearest cache.
  thread_local Scratch scratch;
  const auto line = int64_t(kStripLine / size_of(x.type));
  const int64_t apart = (divide_up(rows, line) | 1) * line;
  void* flat = scratch.get<char>(columns * apart * int64_t(size_of(x.type)));
  simd::transpose(
      {.rows = rows,
       .columns = columns,
       .x = x,
       .out = flat,
       .out_stride = apart});
  simd::convert(
      {columns, rows, {flat, x.type, apart}, {to, DType::f32, stride}});
}

PackedPanel::PackedPanel(
    const StripArgs& args,
    Span columns,
    Span depth,
    Scratch& scratch)
    : args_(args.product),
      type_(args.type),
      columns_(columns),
      depth_(depth),
      rows_(round_up(depth.size(), depth_step(type_))),
      width_(packed_columns(columns.size())),
      values_(scratch.get<char>(
          rows_ * round_up(columns.size(), width_) * int64_t(size_of(type_)))) {
  parallel_tasks(divide_up(columns.size(), kPackedColumns), [&](int64_t i) {
    pack(columns_.begin + i * kPackedColumns);
  });
}

ConstMatrix PackedPanel::from(int64_t column) const {
  return {advance(values_, type_, (column - columns_.begin) * rows_), type_, 0};
}

void PackedPanel::pack(int64_t column) const {
  void* to = advance(values_, type_, (column - columns_.begin) * rows_);
  const int64_t count = std::min(kPackedColumns, columns_.end - column);
  if (type_ == DType::bf16 && args_.weight_by_depth) {
    pack_pairs(column, count, static_cast<BFloat16*>(to));
  } else if (type_ == DType::bf16) {
    transpose_pairs(column, count, static_cast<BFloat16*>(to));
  } else {
    pack_floats(column, count, static_cast<float*>(to));
  }
}

void PackedPanel::pack_pairs(int64_t column, int64_t count, BFloat16* to)
    const {
  const BFloat16* end = to + rows_ * width_;
  const auto row = [&](int64_t depth) {
    return static_cast<const BFloat16*>(at(args_.weight, depth, column).data);
  };
  for (int64_t d = depth_.begin; d < depth_.end; d += 2, to += 2 * width_) {
    const auto* second = d + 1 < depth_.end ? row(d + 1) : nullptr;
    interleave(row(d), second, count, width_, to);
  }
  std::memset(to, 0, size_t(end - to) * sizeof(BFloat16));
}

/// Packs a weight whose rows run along the depth: pairs stand side by side
/// there, and are transposed as one float32 each.
void PackedPanel::transpose_pairs(int64_t column, int64_t count, BFloat16* to)
    const {
  const BFloat16* end = to + rows_ * width_;
  if (count != width_) {
    std::memset(to, 0, size_t(end - to) * sizeof(BFloat16));
  }
  auto pairs = at(args_.weight, column, depth_.begin);
  pairs.type = DType::f32;
  pairs.stride /= 2;
  simd::transpose(
      {.rows = count,
       .columns = depth_.size() / 2,
       .x = pairs,
       .out = to,
       .out_stride = width_});
  to += depth_.size() * width_;
  std::memset(to, 0, size_t(end - to) * sizeof(BFloat16));
}

void PackedPanel::pack_floats(int64_t column, int64_t count, float* to) const {
  float* end = to + rows_ * width_;
  std::fill(width_ == count ? to + depth_.size() * width_ : to, end, 0.0f);
  if (args_.weight_by_depth) {
    simd::convert(
        {depth_.size(),
         count,
         at(args_.weight, depth_.begin, column),
         {to, DType::f32, width_}});
  } else {
    transpose_to_float(
        count,
        depth_.size(),
        at(args_.weight, column, depth_.begin),
        to,
        width_);
  }
}

}  // namespace pennyweight::kernels::onednn

#endif
