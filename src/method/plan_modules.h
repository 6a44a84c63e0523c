#pragma once

#include "format/quant_plan.h"
#include "model/model.h"

namespace pennyweight {

/// Modules that came packed from their publisher stay so in `plan`.
void keep_published(const Model& model, QuantPlan& plan);

/// The plan that gives each of the blocks' linears `linears`, the embedding
/// `embedding` and a head of its own `head`, where they fit.
QuantPlan plan_modules(
    const Model& model,
    const QuantSpec& linears,
    const QuantSpec& embedding,
    const QuantSpec& head);

}  // namespace pennyweight
