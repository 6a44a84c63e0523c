#pragma once

#include "kernels/kernels.h"

namespace pennyweight::kernels::onednn {

/// A matmul of types that oneDNN multiplies as they are: x, weight and out are
/// float32, or x and weight are bfloat16 and out is either. A residual of
/// another type than out is converted into out first.
void product(const MatmulArgs& args);

/// The order in which AMX and AVX-512 read a weight of depth k and width n:
/// blocks of 32 rows by `block` columns, in bfloat16 pairs of rows
/// interleaved, [n / block][k / 32][16][block][2]; short blocks are filled up
/// with zeros. A prefix of the columns (whole blocks) or, of a single block,
/// of the rows is in this order too. In float32 it is
/// [n / block][k / 16][16][block].
inline constexpr int64_t kPackedDepth = 32;
inline constexpr int64_t kPackedColumns = 64;
/// The width of a block of n columns: 64, or the next multiple of 16 where n is
/// smaller.
int64_t packed_columns(int64_t n);

/// product() with a weight in that order, of x's type. packed_product_works()
/// says whether oneDNN has a fast kernel for it on this machine.
void packed_product(const MatmulArgs& args);
bool packed_product_works(int64_t n, int64_t k, DType type = DType::bf16);

}  // namespace pennyweight::kernels::onednn
