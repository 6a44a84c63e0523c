#pragma once

#include <cstdint>
#include <functional>

#include "kernels/kernels.h"

namespace pennyweight::ops {

/// Rows x [count, in] to out [count, width], each by its own expert's matrix;
/// they stand sorted by expert.
struct ExpertRows {
  int64_t count = 0;
  int64_t in = 0;
  int64_t width = 0;
  kernels::ConstMatrix x{};
  kernels::Matrix out{};
  const uint32_t* expert = nullptr;  // of each row
};

/// out = what `expert` makes of `rows` rows of x.
using MultiplyRows = std::function<void(
    uint32_t expert,
    int64_t rows,
    const kernels::ConstMatrix& x,
    const kernels::Matrix& out)>;

/// Calls `multiply` for all rows, some of one expert at a time: as tasks where
/// that makes many calls, since small products gain nothing from several
/// threads each, else one after the other. The number
/// of an expert's rows is another in each batch, and oneDNN compiles a product
/// for each: so that there are only a few, short pieces are filled up with rows
/// of zeros, apart from x.
void multiply_pieces(const ExpertRows& rows, const MultiplyRows& multiply);

}  // namespace pennyweight::ops
