#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/options.h"
#include "format/quant_spec.h"
#include "kernels/types.h"

namespace pennyweight {

/// How GPTQ rounds one weight (arXiv 2210.17323). Which width and group it
/// rounds to is a QuantSpec of its own.
struct GptqOptions {
  /// Added to the Hessian's diagonal, as a share of the diagonal's mean.
  double damp = 0.01;
  /// Columns in falling order of the Hessian's diagonal; the groups stay
  /// where they are ("static groups"), so that nothing is permuted in the
  /// file.
  bool act_order = true;
  /// GPTQ as in the paper and in mlx-lm: min/max grids of each group's
  /// weights at the time that it is reached, file order, nothing after.
  bool plain = false;
  /// Search each group's grid under the Hessian's weight; else min/max.
  bool grid_search = true;
  /// Share of the correction by GptqShift that is applied. In full it fits
  /// the calibration tokens' noise: SmolLM2-135M, 4 bits, 32,768 tokens: KL
  /// 0.056 with none, 0.049 with half, 0.061 with all.
  double shift = 0.5;
  /// Most rounds of a refit of scales and biases and a descent over codes;
  /// one that gains nothing is the last. SmolLM2-135M, 4 bits: a second round
  /// lowers the layers' loss by 1.6 %, and no KL that could be told from
  /// noise.
  int rounds = 1;
  bool refit = true;
  bool descend = true;
  /// A walk tries each block without shift, refit and search only in every
  /// n-th block (0, n, ...); rounding to nearest in each.
  int gate_every = 8;
  /// Each expert of a mixture is rounded under the Hessian of the tokens that
  /// chose it; else all under one, as in mlx-lm.
  bool expert_hessians = true;
  /// Whether GptqFigures' losses are wanted; else they are 0 where the
  /// rounding itself does not need them. No user's option.
  bool figures = true;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "damp",
         .help = "Added to the Hessian's diagonal, as a share of its mean",
         .advanced = true},
        self.damp);
    option(
        {.name = "act-order",
         .help = "Round the columns with the largest activations first",
         .advanced = true},
        self.act_order);
    option(
        {.name = "plain",
         .help = "GPTQ as in the paper, without any of the improvements; "
                 "embedding and head rounded to nearest"},
        self.plain);
    option(
        {.name = "grid-search",
         .help = "Search scales and biases under the Hessian's weight",
         .advanced = true},
        self.grid_search);
    option(
        {.name = "shift",
         .help = "Share of the correction for inputs that earlier blocks "
                 "have changed",
         .advanced = true},
        self.shift);
    option(
        {.name = "rounds",
         .help = "Rounds of refitting scales and descending over codes",
         .advanced = true},
        self.rounds);
    option(
        {.name = "refit",
         .help = "Refit scales and biases to the codes by least squares",
         .advanced = true},
        self.refit);
    option(
        {.name = "descend",
         .help = "Coordinate descent over the codes after rounding",
         .advanced = true},
        self.descend);
    option(
        {.name = "gate-every",
         .help = "Try every n-th block without each part as well, and keep "
                 "what is best on held-out text; 1: every block",
         .advanced = true},
        self.gate_every);
    option(
        {.name = "expert-hessians",
         .help = "Round each expert for the tokens that choose it, not for "
                 "all experts' tokens",
         .advanced = true},
        self.expert_hessians);
  }
};

/// invalid_argument Error, naming the flag, for values out of range.
void check_options(const GptqOptions& options);

/// The Hessian of linears that share their inputs, damped and factored once
/// for all of them:
///   P (H + lambda I) P^T = (A + I)^T D^2 (A + I),
/// A strictly lower triangular, D diagonal, P the order of rounding.
class GptqHessian {
 public:
  /// hessian float32 [columns, columns], symmetric: the sum, or the mean,
  /// over tokens of x x^T (any factor gives the same codes; losses are in
  /// its unit). Taken by value: move it in, it is not copied. lambda = damp *
  /// mean diagonal, ten times more as often as the factorization needs.
  /// numeric Error for values that are not finite, or when no damping up to
  /// 1000 times the mean diagonal helps; invalid_argument for a wrong size.
  GptqHessian(
      std::vector<float> hessian,
      int64_t columns,
      const GptqOptions& options);
  ~GptqHessian();
  GptqHessian(GptqHessian&&) noexcept;
  GptqHessian& operator=(GptqHessian&&) noexcept;

  int64_t columns() const;
  /// What was added to the diagonal, in the Hessian's unit.
  double lambda() const;
  /// lambda over the mean diagonal: the damp asked for, or more.
  double damp() const;
  /// Inputs that were zero in every token. Their weights are rounded to
  /// nearest and move nothing else.
  int64_t dead_inputs() const;

  struct Factor;
  const Factor& factor() const;

 private:
  std::unique_ptr<Factor> factor_;
};

/// What the linear should make up for: with x the inputs of the quantized
/// path and y the outputs wanted, the sum (or mean, as the Hessian) of
/// (y - W x) x^T. GPTAQ (arXiv 2504.02692) wants y = W x_full, which is
///   input  [columns, columns]: sum of (x_full - x) x^T, times W on the left;
/// where the linear's output is added to a residual stream, what the stream
/// before it has lost may be added,
///   output [rows, columns]: sum of (r_full - r) x^T.
/// Either may be null.
struct GptqShift {
  const float* input = nullptr;
  const float* output = nullptr;
};

/// tr((T - Q) H (T - Q)^T) over the undamped Hessian, T the weight that the
/// codes are fitted to: W, or W with the shift applied. Of plain GPTQ they are
/// those of an eighth of the rows, times eight, where rows are many.
struct GptqFigures {
  double loss_nearest = 0;  // round to nearest of T, as mx::quantize does it
  double loss_rounded = 0;  // after GPTQ's pass
  double loss = 0;          // at the end
  double shift = 0;         // |T - W| / |W|, Frobenius
  double codes_moved = 0;   // share that the descent has changed
  int rounds = 0;           // rounds done, the most of any row tile
  double lambda = 0;
  int64_t dead_inputs = 0;
};

/// weight = scales * codes + biases, by group of spec.group_size columns. In
/// the fp modes a code is that of an e2m1 or e4m3 number, there are no biases,
/// and scale_codes are the scales as they are stored (e8m0 or e4m3).
struct GptqResult {
  int64_t rows = 0;
  std::vector<uint8_t> codes;  // [rows, columns], below 2^bits
  std::vector<float> scales;   // [rows, columns / group], exact in the dtype
  std::vector<float> biases;   // likewise; affine only
  std::vector<uint8_t> scale_codes;  // fp modes only
  GptqFigures figures;
};

/// Rounds weight [rows, columns] float32 to `spec`, with affine scales and
/// biases of type `dtype`. (In the fp modes there is no refit.) Several linears
/// that share a GptqHessian may be stacked along rows. Rows are independent of
/// each other and the result is the same for any number of threads. Every stage
/// after GPTQ's pass lowers a row's loss (over the damped Hessian) or leaves
/// the row as it was. `rounded`, where given, gets what options.rounds = 0
/// would give, at next to no cost. numeric Error when the weight or a scale is
/// not finite.
GptqResult gptq_quantize(
    const float* weight,
    int64_t rows,
    const GptqHessian& hessian,
    const QuantSpec& spec,
    kernels::DType dtype,
    const GptqOptions& options,
    const GptqShift& shift = {},
    GptqResult* rounded = nullptr);

}  // namespace pennyweight
