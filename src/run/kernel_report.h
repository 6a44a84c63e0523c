#pragma once

#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "kernels/product_log.h"
#include "model/model.h"

namespace pennyweight {

using Served = std::vector<kernels::ServedProducts>;

/// The kernels in use, and which implementation has served how many of this
/// process's products since `before` was asked for: {"choice", "instructions",
/// "threads", "products":
/// [{"implementation", "calls", "operations", "share"}]}.
Json kernels_json(const Served& before = {});

/// The same in a few words, for a report's reader.
std::string describe_kernels();

/// What to warn of where a library's fast products were not to be had for a
/// part of the work; empty where that part is small.
std::string slow_products(const Served& before = {});

/// One kind of product that a model's blocks or head need, run for a moment.
struct KernelRow {
  std::string what;   // "linear", "gradient", "sum of x x^T", "attention" ...
  std::string shape;  // as a reader wants it
  std::string implementation;  // "oneDNN brg:...", those with a part in it
  double operations_per_second = 0;
};

/// Each distinct shape of the model: linears forward and backward, sums over
/// tokens, attention forward and backward, and the head; 512 tokens of random
/// numbers in the model's type.
std::vector<KernelRow> try_kernels(
    const Model& model,
    const ProgressFn& progress = {});

Json to_json(const std::vector<KernelRow>& rows);

}  // namespace pennyweight
