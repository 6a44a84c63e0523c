#pragma once

#include <memory>
#include <string>

#include "checkpoint/shard_provider.h"
#include "core/json_fwd.h"
#include "core/options.h"
#include "core/progress.h"

namespace pennyweight {

/// Of commands that can do with a hub's model file by file.
struct StreamOptions {
  bool stream = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "stream",
         .help = "Of a hub id: fetch a file of weights, use it and let it go, "
                 "so that the disk holds two of them at most",
         .affects_result = false,
         .advanced = true},
        self.stream);
  }
};

// The Python package fetches (python/pennyweight/stream.py) and listens on a
// socket that only this user may open. A request is a line of JSON, and so is
// its answer:
//
//   {"fetch": "model-00001-of-00002.safetensors"}  ->  {"path": PATH}
//   {"release": "model-00001-of-00002.safetensors"}  ->  {}
//
// or {"code": ERROR CODE, "message": TEXT}.

/// Of the model `name` in what was handed over (run/fetched.h), where that has
/// a "socket"; null where it has none: the folder is whole. invalid_argument
/// for a name that is a folder already. While it waits it reports to
/// `progress`, and so can be stopped.
std::shared_ptr<ShardProvider> shard_provider(
    const std::string& name,
    const Json& fetched,
    const ProgressFn& progress);

}  // namespace pennyweight
