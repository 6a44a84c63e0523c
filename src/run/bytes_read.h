#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "format/quant_plan.h"
#include "model/model.h"

namespace pennyweight {

/// Of each module of list_stored_modules(), which part of its bytes a token
/// that is generated reads: of experts the chosen among all, of an embedding
/// that is not the head, too, one row; of everything else 1.
std::map<std::string, double> read_shares(const DecoderSpec& spec);

/// Bytes of weights that a generated token reads of an output of this plan:
/// norms and other parameters included; what is no part of the language model,
/// and the cache of keys and values, not.
double bytes_read(const Model& model, const QuantPlan& plan);

}  // namespace pennyweight
