#pragma once

#include <cstdint>
#include <vector>

#include "core/options.h"
#include "format/quant_spec.h"
#include "kernels/types.h"
#include "method/gptq/gptq.h"

namespace pennyweight {

/// AWQ (arXiv 2306.00978), with mlx-lm's search: scales of a linear's inputs,
/// and ranges of its groups, that lower what rounding to nearest loses.
struct AwqOptions {
  /// Ratios tried, 0 / n .. (n - 1) / n, and half as many ranges.
  int n_grid = 20;
  bool scale = true;
  bool clip = true;
  /// Shrinks the two ends of a group's range apart; else both alike, as
  /// mlx-lm does.
  bool asymmetric = true;
  /// Candidates of the search by the Gram matrix that are tried on the block.
  int confirm = 3;
  /// Feeds blocks the full-precision model's activations, as mlx-lm does.
  bool full_inputs = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "n-grid",
         .help = "Scales tried for each group of linears, and twice the ranges "
                 "tried for each group of weights"},
        self.n_grid);
    option(
        {.name = "scale",
         .help = "Scale inputs, and what makes them inversely",
         .advanced = true},
        self.scale);
    option(
        {.name = "clip",
         .help = "Search the range of each group of weights",
         .advanced = true},
        self.clip);
    option(
        {.name = "asymmetric",
         .help = "Shrink the ends of a range apart, not only alike",
         .advanced = true},
        self.asymmetric);
    option(
        {.name = "confirm",
         .help = "Scales, best by the inputs' Gram matrix, that are tried on "
                 "the block's output; 1: none is",
         .advanced = true},
        self.confirm);
    option(
        {.name = "full-inputs",
         .help = "Feed blocks the full-precision model's activations, as "
                 "mlx-lm does, not the quantized model's",
         .advanced = true},
        self.full_inputs);
  }
};

/// invalid_argument Error, naming the flag, for values out of range.
void check_options(const AwqOptions& options);

/// max(m^ratio, 1e-4) over sqrt(largest * smallest) of these, m [channels]
/// being the mean magnitude of each input; a channel without any gets what
/// the smallest scale is.
std::vector<float> awq_scales(const std::vector<float>& means, double ratio);

/// A linear that is to be rounded as W diag(columns) / rows.
struct AwqInput {
  const float* weight = nullptr;  // [rows, columns], float32
  int64_t rows = 0;
  int64_t columns = 0;
  /// Sum over tokens of x x^T, x the inputs before scaling [columns, columns].
  const float* gram = nullptr;
  const float* column_scales = nullptr;  // [columns], null: ones
  const float* row_scales = nullptr;     // [rows], null: ones
};

/// Rounds to nearest, each group's range first shrunk as far as that lowers
/// e^T G_gg e of its rows' errors e if options.clip. result.figures.loss is
/// tr(E G E^T), E = W - Q in W's own scale; codes, scales and biases are those
/// of the scaled weight. numeric Error for a scale that the
/// type can't hold, not_supported for a mode that is not affine.
GptqResult awq_round(
    const AwqInput& input,
    const QuantSpec& spec,
    kernels::DType dtype,
    const AwqOptions& options);

}  // namespace pennyweight
