#pragma once

#include <cstdint>
#include <functional>

#include "kernels/kernels.h"

namespace pennyweight::ops {

/// The rows x [count, in], of which each is multiplied by its own expert's
/// matrix, and their results out [count, width]. Rows are sorted by expert.
struct ExpertRows {
  int64_t count = 0;
  int64_t in = 0;
  int64_t width = 0;
  kernels::ConstMatrix x{};
  kernels::Matrix out{};
  const uint32_t* expert = nullptr;  // of each row
};

/// Writes to out what the expert makes of `rows` rows of x.
using MultiplyRows = std::function<void(
    uint32_t expert,
    int64_t rows,
    const kernels::ConstMatrix& x,
    const kernels::Matrix& out)>;

/// Calls `multiply` for all rows, for a piece of one expert's rows at a time.
/// Many pieces are tasks of one thread each, since small products gain nothing
/// from more; few run one after the other. oneDNN compiles a product for each
/// number of rows, and experts have another number in each batch: so that few
/// products are compiled, short pieces are copied and filled up with rows of
/// zeros.
void multiply_pieces(const ExpertRows& rows, const MultiplyRows& multiply);

}  // namespace pennyweight::ops
