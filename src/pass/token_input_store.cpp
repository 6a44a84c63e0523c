#include "pass/token_input_store.h"

#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"

namespace pennyweight {

TokenInputStore::TokenInputStore(
    size_t batches,
    int first,
    int end,
    MemoryBudget& budget,
    const std::filesystem::path& folder)
    : batches_(batches),
      first_(first),
      end_(end),
      store_(batches * static_cast<size_t>(end - first), budget, folder) {}

size_t TokenInputStore::slot(int block, size_t batch) const {
  return static_cast<size_t>(block - first_) * batches_ + batch;
}

void TokenInputStore::put(
    size_t batch,
    const EmbeddingAndHead& tables,
    const mx::array& tokens,
    const mx::array& x,
    mx::Dtype dtype) {
  const auto all = token_inputs(tables, tokens, x, dtype);
  for (int b = first_; b < end_ && !all.empty(); ++b) {
    store_.put(slot(b, batch), all.at(static_cast<size_t>(b)));
  }
}

mx::array TokenInputStore::get(const BlockSpec& block, size_t batch) const {
  return store_.get(slot(block.index, batch));
}

mx::array TokenInputStore::beside(
    const BlockSpec& block,
    const mx::array& x,
    size_t batch) const {
  return block.token_gate ? with_token_input(x, get(block, batch)) : x;
}

}  // namespace pennyweight
