#pragma once

#include "kernels/kernels.h"

namespace pennyweight::kernels::onednn {

/// A product in float32 by strips of rows that stay in a core's second-level
/// cache together with their result, against a weight that is packed once.
/// What is not float32 is converted on the way, in the cache, so that bfloat16
/// is about as fast as float32 in oneDNN's product of the whole, and float32
/// no slower (bench/kernels_bench).
struct StripArgs {
  MatmulArgs product;
  bool x_by_depth = false;  // x is [k, m], and is transposed
  bool upper = false;       // only columns from a row's own on are needed
};

/// Whether oneDNN has what strips are made of, the product is large enough,
/// and it is not part of a larger parallel work.
bool strips_pay(const MatmulArgs& args);
void strip_product(const StripArgs& args);

}  // namespace pennyweight::kernels::onednn
