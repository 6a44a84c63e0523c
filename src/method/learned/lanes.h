#pragma once

#include <cstdint>

/// The inner loops of learned rounding, over one group of a weight: float32
/// arrays of `size` elements, a multiple of 16.
namespace pennyweight::learned {

/// out = scale * q + bias, q = round(latent) in 0 .. top.
struct ExpandGroup {
  int64_t size;
  const float* latent;
  float scale;
  float bias;
  float top;
  float* out;
};
void expand_group(const ExpandGroup& group);

/// latent rounded, in 0 .. top.
void round_group(const float* latent, int64_t size, float top, float* codes);

/// What Adam's step number and rate come to.
struct AdamFactors {
  float rate;
  float mean;      // 1 / (1 - b1^t)
  float square;    // 1 / (1 - b2^t)
  float gradient;  // of the gradients
};

/// One step of Adam on a group's latents, down
///   scale (dw + curvature scale (latent - q));
/// codes q are those before it.
struct LearnGroup {
  int64_t size;
  const float* dw;         // the gradient by the dense weight
  const float* curvature;  // of the loss, times row
  float row;
  float scale;
  float middle;
  float top;
  float* latent;
  float* m;
  float* v;
  float by_scale;   // out: sum of dw (q - middle)
  float by_centre;  // out: sum of dw
};
void learn_group(LearnGroup& group, const AdamFactors& adam);

inline constexpr float kBeta1 = 0.9f;
inline constexpr float kBeta2 = 0.99f;
inline constexpr float kEps = 1e-12f;

}  // namespace pennyweight::learned
