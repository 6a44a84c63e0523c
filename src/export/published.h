#pragma once

#include <string>

#include "core/json_fwd.h"
#include "model/model.h"

namespace pennyweight {

/// What came packed from the model's publisher, and so stays as it is
/// (ModuleSpec::published), in words for a user; empty: nothing did.
std::string describe_published(const Model& model);

/// The same for a card, and of a source that is expanded as it is read
/// (PackedSource::describe()).
std::string packed_words(const Model& model);

/// For --json: how many "modules", in which "widths" ("4:32:mxfp4"), of how
/// many "parameters" and "bytes"; null: nothing did.
Json published_json(const Model& model);

}  // namespace pennyweight
