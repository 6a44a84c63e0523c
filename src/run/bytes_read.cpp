#include "run/bytes_read.h"

#include "export/conversion.h"
#include "export/output_type.h"

namespace pennyweight {

std::map<std::string, double> read_shares(const DecoderSpec& spec) {
  std::map<int, double> chosen;  // by block
  for (const BlockSpec& block : spec.blocks) {
    if (block.moe) {
      chosen[block.index] =
          double(block.moe->chosen) / double(block.moe->count);
    }
  }
  std::map<std::string, double> shares;
  for (const ModuleSpec& module : list_stored_modules(spec)) {
    double& share = shares.emplace(module.path, 1.0).first->second;
    if (module.expert) {
      share = chosen.at(module.block);
    } else if (module.kind == ModuleSpec::Kind::embedding && !module.tied) {
      share = 1.0 / double(module.out);
    }
  }
  return shares;
}

double bytes_read(const Model& model, const QuantPlan& plan) {
  ConversionSettings settings;
  settings.dtype = output_dtype(model);
  settings.plan = plan;
  const auto shares = read_shares(model.spec);
  double bytes = 0;
  const Conversion planned(model, settings);
  for (const auto& tensor : planned.tensors()) {
    if (is_among(tensor.name, model.spec.carried)) {
      continue;
    }
    const auto it = shares.find(module_of(tensor.name));
    bytes += double(plan_bytes(tensor)) * (it == shares.end() ? 1 : it->second);
  }
  return bytes;
}

}  // namespace pennyweight
