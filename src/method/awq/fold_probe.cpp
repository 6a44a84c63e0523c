#include "method/awq/fold_probe.h"

#include <algorithm>

namespace pennyweight {

MethodNeeds FoldProbe::needs() const {
  auto needs = awq_.needs();
  const auto other = then_->needs();
  needs.held_out = needs.held_out || other.held_out;
  needs.restarts = needs.restarts || other.restarts;
  return needs;
}

int64_t FoldProbe::working_bytes(const BlockSpec& block) const {
  return std::max(awq_.working_bytes(block), then_->working_bytes(block));
}

BlockFigures FoldProbe::run(BlockTask& task) {
  const bool tries = folds_ || task.spec().index % every_ == 0;
  auto figures = tries ? awq_.run(task) : then_->run(task);
  if (tries) {
    folds_ = figures.kept == "scaled";
  }
  figures.details["folds"] = folds_;
  return figures;
}

void FoldProbe::resume(const BlockFigures& figures) {
  folds_ = figures.details.value("folds", false);
}

}  // namespace pennyweight
