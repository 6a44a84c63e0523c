#pragma once

#include <cstdint>
#include <vector>

#include "core/options.h"
#include "method/block_method.h"

/// Learned rounding: codes, scales and biases of a block trained together on
/// the block's output, for widths where one-shot methods fall apart (after
/// AutoRound, arXiv 2309.05516, and EfficientQAT's Block-AP, arXiv 2407.11062).
namespace pennyweight {

struct LearnedOptions {
  /// Steps a block; 0: none.
  int steps = 200;
  /// Tokens a step, rounded up to whole batches.
  int tokens = 4096;
  /// Highest rate of a latent, in codes.
  double rate = 0.01;
  /// And of a group's scale and centre, in the module's mean scale.
  double grid_rate = 0.005;
  /// A block whose modules all have more bits is left as it is.
  int max_bits = 3;
  uint64_t seed = 7;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "learn-steps",
         .help = "Steps of training each block's codes, scales and biases "
                 "together on its output; 0: none"},
        self.steps);
    option(
        {.name = "learn-tokens",
         .help = "Tokens of one such step",
         .advanced = true},
        self.tokens);
    option(
        {.name = "learn-rate",
         .help = "Learning rate of codes, in codes",
         .advanced = true},
        self.rate);
    option(
        {.name = "learn-grid-rate",
         .help = "Learning rate of scales and biases, in parts of a code",
         .advanced = true},
        self.grid_rate);
    option(
        {.name = "learn-max-bits",
         .help = "Leave blocks alone whose linears all have more bits",
         .advanced = true},
        self.max_bits);
    option(
        {.name = "learn-seed",
         .help = "Seed of the order in which batches are drawn",
         .advanced = true},
        self.seed);
  }
};

/// invalid_argument Error, naming the flag, for values out of range.
void check_options(const LearnedOptions& options);

struct LearnStep {
  double rate = 0;       // of latents, in codes
  double grid_rate = 0;  // of scales and centres, in the mean scale
  double factor = 1;     // of the gradient
  int64_t step = 1;      // from 1, for the correction of the moments' bias
};

/// One affine module under training: W = s (q - c) + b, c the middle code,
/// q = round(t) within the codes, t the latents. Adam (arXiv 1412.6980, b1 0.9,
/// b2 0.99) on t and on each group's s and b. As if rounding were not there,
/// t's gradient would be s dL/dW; then latents gather at the edges between
/// codes and flip to and fro. What is taken is the gradient where t is, not q:
/// with h the loss's curvature by W,
///   s (dL/dW + h s (t - q)),
/// so that a code moves where t's own best is nearer to another, as in
/// coordinate descent. A latent stays within half a code of the codes. 13
/// bytes a weight.
class LearnedWeight {
 public:
  /// Of a packed affine weight and the full-precision one that it stands for,
  /// float32 [out, in]. Begins as just that packed weight, each latent as near
  /// to the full weight as its code lets it.
  LearnedWeight(
      const ops::QuantizedWeight& start,
      const mx::array& full,
      const Curvature& curvature);

  /// What packed() stands for, [out, in] in the type of the scales.
  mx::array weight() const;
  ops::QuantizedWeight packed() const;
  /// One step down the gradient by weight(), float32 [out, in].
  void update(const mx::array& gradient, const LearnStep& step);
  /// The share of codes that are not the start's.
  double moved() const;

 private:
  /// Of each group: how far it is from the start's, and Adam's moments.
  struct Grid {
    std::vector<float> value, m, v;
    explicit Grid(size_t groups) : value(groups), m(groups), v(groups) {}
  };

  std::vector<uint8_t> codes() const;
  void settle();

  ops::QuantizedWeight start_;
  int64_t rows_;
  int64_t columns_;
  float top_;
  float middle_;
  float unit_ = 0;  // the mean |scale|
  Curvature curvature_;
  std::vector<uint8_t> start_codes_;
  std::vector<float> latent_, m_, v_;
  std::vector<float> start_scale_, start_bias_;
  Grid scale_, centre_;
  // As stored: in their type, and the same in float32.
  mx::array scales_, biases_;
  std::vector<float> own_scale_, own_bias_;
};

}  // namespace pennyweight
