#include "checkpoint/checkpoint.h"
#include "core/error.h"

namespace pennyweight {

namespace {

struct NonFinite {
  int64_t nan = 0;
  int64_t infinite = 0;
};

// Counts values whose exponent, the bits of `exponent`, is all ones: they are
// infinite if the fraction below it is 0, and otherwise NaN.
template <class Word>
NonFinite count_non_finite(const mx::array& tensor, Word exponent) {
  const Word* data = tensor.data<Word>();
  int64_t all = 0;
  for (size_t i = 0; i < tensor.size(); ++i) {
    all += (data[i] & exponent) == exponent;
  }
  NonFinite count;
  if (all == 0) {
    return count;
  }
  // All bits below the lowest one of the exponent.
  const Word fraction = Word((exponent & (~exponent + 1)) - 1);
  for (size_t i = 0; i < tensor.size(); ++i) {
    const bool is_nan =
        (data[i] & exponent) == exponent && (data[i] & fraction) != 0;
    count.nan += is_nan;
  }
  count.infinite = all - count.nan;
  return count;
}

std::string counted(int64_t count, const std::string& what) {
  return std::to_string(count) + " " + what +
      (count == 1 ? " value" : " values");
}

}  // namespace

void require_finite(const mx::array& tensor, const std::string& name) {
  if (!tensor.is_available() || !tensor.flags().row_contiguous) {
    throw argument_error(
        "checkpoint",
        "tensor " + one_line(name, 120) + " must be evaluated and contiguous");
  }
  NonFinite count;
  if (tensor.dtype() == mx::bfloat16) {
    count = count_non_finite<uint16_t>(tensor, 0x7f80);
  } else if (tensor.dtype() == mx::float16) {
    count = count_non_finite<uint16_t>(tensor, 0x7c00);
  } else if (tensor.dtype() == mx::float32) {
    count = count_non_finite<uint32_t>(tensor, 0x7f800000);
  }
  if (count.nan + count.infinite == 0) {
    return;
  }
  const auto nan = counted(count.nan, "NaN");
  const auto infinite = counted(count.infinite, "infinite");
  throw numeric_error(
      "checkpoint",
      "tensor " + one_line(name, 120) + " holds " +
          (count.infinite == 0  ? nan
               : count.nan == 0 ? infinite
                                : nan + " and " + infinite) +
          ": the checkpoint is damaged");
}

}  // namespace pennyweight
