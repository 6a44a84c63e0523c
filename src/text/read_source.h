#pragma once

#include <memory>

#include "text/data_source.h"
#include "text/token_pool.h"

namespace pennyweight {

/// What a source gave: see TokenData.
struct SourceSummary {
  uint64_t count = 0;  // of sequences
  int64_t tokens = 0;
  DataUse use;
  std::vector<std::string> warnings;
};

struct ReadSource {
  std::unique_ptr<TokenPool> pool;
  SourceSummary summary;
};

/// Reads all of a source but `self` and cuts it into sequences; see load_data
/// for what is used, what is left out, and the errors.
ReadSource read_source(
    const Tokenizer& tokenizer,
    const DataSource& source,
    const LoadDataOptions& options,
    const ProgressFn& progress);

}  // namespace pennyweight
