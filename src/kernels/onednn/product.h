#pragma once

#include "kernels/kernels.h"

namespace pennyweight::kernels::onednn {

/// Whether bfloat16 products run on bfloat16 instructions here.
bool has_bfloat16();

/// A matmul whose types oneDNN multiplies as they are: x and weight float32
/// and out float32, or bfloat16 and out either; the residual is of out's type.
void product(const MatmulArgs& args);

/// The order in which AMX and AVX-512 read a bfloat16 weight of depth k and
/// width n: blocks of 32 rows by `block` columns, pairs of rows interleaved,
/// [n / block][k / 32][16][block][2]; short blocks are filled up with zeros.
/// A prefix of the columns (whole blocks) or, of a single block, of the rows
/// is in this order too.
inline constexpr int64_t kPackedDepth = 32;
inline constexpr int64_t kPackedColumns = 64;
/// 64, or for what is left of less: the next multiple of 16.
int64_t packed_columns(int64_t n);

/// product() whose weight is in that order. packed_product_works is whether
/// oneDNN takes it here for such products.
void packed_product(const MatmulArgs& args);
bool packed_product_works(int64_t n, int64_t k);

}  // namespace pennyweight::kernels::onednn
