#include "pass/block_work.h"

namespace pennyweight {

BlockWork count_work(const BlockSpec& spec) {
  // A weight's rounding moves those after it in its row, and a multiplication
  // of that takes 6 (AVX-512) to 25 times (AMX) what one of a product does.
  constexpr double kRounding = 16;
  BlockWork work;
  std::string input;
  for (const ModuleSpec& module : list_modules(spec)) {
    const double in = double(module.in);
    const double weights = in * double(module.out);
    const double share =
        module.expert ? double(spec.moe->chosen) / double(spec.moe->count) : 1;
    work.products += share * weights;
    work.sums += module.input_id == input ? 0 : share * in * in;
    work.rounding += module.published ? 0 : kRounding * weights * in;
    input = module.input_id;
  }
  return work;
}

}  // namespace pennyweight
