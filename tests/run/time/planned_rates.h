#pragma once

#include "run/time/machine_rates.h"

namespace pennyweight::testing {

/// Rates of a model of one kind of block, which tests set as they need.
inline MachineRates planned_rates(const Model& model) {
  MachineRates rates;
  rates.kinds.resize(1);
  rates.kind.assign(model.spec.blocks.size(), 0);
  for (const ModuleSpec& module : list_modules(model.spec)) {
    (module.block < 0 ? rates.tables : rates.widths)[module.in] = {};
  }
  rates.load.cores = 2;
  rates.threads = 2;
  return rates;
}

/// All that goes with tokens and with rows takes something.
inline MachineRates typical_rates(const Model& model) {
  auto rates = planned_rates(model);
  for (auto* widths : {&rates.widths, &rates.tables}) {
    for (auto& [in, own] : *widths) {
      own = {1e-2, 1e-3, 3e-4, 1e-4, 1e-5, 1e-5, 1e-5, 1e-4};
    }
  }
  rates.kinds[0] = {1e-3, 1e-5, 4e-5, 4e-5, 1e-3, 4e-5, 5e-5, 1e-3, 1e-3};
  rates.head = {1e-3, 1e-4, 2e-4, 2e-4, 4e-4, 1e-3};
  return rates;
}

}  // namespace pennyweight::testing
