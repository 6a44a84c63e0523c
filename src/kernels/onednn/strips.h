#pragma once

#include "kernels/kernels.h"

namespace pennyweight::kernels::onednn {

/// A product by strips of rows that stay in a core's second-level cache
/// together with their result, against a weight that is packed once. In
/// float32, what is of another type is converted on the way, in the cache, so
/// that bfloat16 is about as fast as float32 in oneDNN's product of the whole,
/// and float32 no slower (bench/kernels_bench). In bfloat16 it is some 5 %
/// faster than product() from 512 rows on.
struct StripArgs {
  MatmulArgs product;
  bool x_by_depth = false;  // x is [k, m], and is transposed
  bool upper = false;       // only columns from a row's own on are needed
  /// In which it is multiplied. bf16: x and weight are of it, and the weight
  /// by depth or of rows that begin at a multiple of 4 bytes, with an even k.
  DType type = DType::f32;
};

/// Whether oneDNN has what strips are made of, the product is large enough,
/// and it is not part of a larger parallel work.
bool strips_pay(const MatmulArgs& args, DType type = DType::f32);
void strip_product(const StripArgs& args);

}  // namespace pennyweight::kernels::onednn
