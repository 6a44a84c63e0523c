#pragma once

#include "kernels/kernels.h"

namespace pennyweight::kernels::onednn {

/// A product that is made in strips of rows, each of which stays in a core's
/// second-level cache together with its result; the weight is packed once for
/// all strips. In float32, operands of another type are converted strip by
/// strip, in the cache: bfloat16 operands then cost about what float32 ones do
/// in oneDNN's product of the whole, and float32 ones no more
/// (bench/kernels_bench). In bfloat16 strips are some 5 % faster than product()
/// from 512 rows on.
struct StripArgs {
  MatmulArgs product;
  bool x_by_depth = false;  // x is [k, m], and is transposed
  bool upper = false;       // only columns from a row's own on are needed
  /// The type that is multiplied. With bf16, x and weight are bfloat16, and the
  /// weight is by depth or k is even and its rows begin at multiples of 4
  /// bytes.
  DType type = DType::f32;
};

/// Whether strips are possible and worth it: oneDNN has the packed products
/// that they are made of, the product is large enough, and the caller is no
/// task.
bool strips_pay(const MatmulArgs& args, DType type = DType::f32);
void strip_product(const StripArgs& args);

}  // namespace pennyweight::kernels::onednn
