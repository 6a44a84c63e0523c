#pragma once

#include "kernels/kernels.h"

/// Kernels that are made of matrix products, for whichever implementation
/// brings the product.
namespace pennyweight::kernels {

using ProductFn = void (*)(const MatmulArgs&);

/// A packed weight is expanded to `panel_type`, a few megabytes at a time.
void quantized_matmul_by_panels(
    const QuantizedMatmulArgs& args,
    ProductFn product,
    DType panel_type);

/// Tiles of queries against blocks of keys, weights as running softmax sums
/// (arXiv 2205.14135); a tile's scores stay in the second-level cache. Tiles
/// of queries and weights are of `tile_type`, float32 or bfloat16.
void attention_by_tiles(
    const AttentionArgs& args,
    ProductFn product,
    DType tile_type);

}  // namespace pennyweight::kernels
