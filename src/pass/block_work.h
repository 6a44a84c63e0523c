#pragma once

#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What a block takes beside other blocks, in multiplications of a product.
struct BlockWork {
  double products = 0;  // a token, through the block
  double sums = 0;      // a token, of its linears' inputs
  double rounding = 0;  // of its weights, by GPTQ
};
BlockWork count_work(const BlockSpec& spec);

}  // namespace pennyweight
