#pragma once

#include "method/gptq/gptq.h"
#include "pass/statistics.h"
#include "run/time/machine_rates.h"
#include "run/time/rate_sampler.h"

namespace pennyweight {

/// A linear whose roundings are timed, with what it reads.
struct WidthSample {
  mx::array weight;  // [out, in], in the model's type
  InputStatistics sums;
  int64_t rows = 0;  // to time at least
};

/// Times the roundings of some of its rows; of `tables` without losses and
/// learning, which embedding and head are spared. Those of wide linears are
/// timed on two parts of their inputs, from which at_width() gives the whole.
WidthRates measure_width(
    const WidthSample& sample,
    mx::Dtype dtype,
    RateSampler& sampler,
    bool tables = false);

}  // namespace pennyweight
