// y = W n(x) = (W diag(s)) (n(x) / s): s goes into the columns of all linears
// that read n and, inverted, into the rows of what makes n. A norm's weight v
// is rounded to v' = round(v / s), and s' = v / v' is what the columns get, so
// that the product is v's again.

#include "pass/fold.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>

#include "core/error.h"
#include "pass/floats.h"

namespace pennyweight {

namespace {

// (x + offset) / scales - offset, in x's type.
mx::array
divided(const mx::array& x, const mx::array& scales, float offset = 0) {
  const mx::array shift(offset);
  auto whole = mx::astype(x, mx::float32) + shift;
  return mx::astype(whole / scales - shift, x.dtype());
}

void check_scales(const ScaleGroup& group, const std::vector<float>& scales) {
  bool fits = static_cast<int64_t>(scales.size()) == group.channels;
  for (float scale : scales) {
    fits = fits && std::isfinite(scale) && scale > 0;
  }
  if (!fits) {
    throw numeric_error(
        "fold",
        "scales of the inputs of " + group.linears.front() +
            " are not finite and positive, or not " +
            std::to_string(group.channels));
  }
}

}  // namespace

std::vector<float> previous_scales(
    const ScaleGroup& group,
    const std::vector<float>& scales) {
  if (group.from.empty()) {
    return scales;
  }
  std::vector<float> previous(static_cast<size_t>(group.outputs), 1.0f);
  for (size_t c = 0; c < scales.size(); ++c) {
    previous[static_cast<size_t>(group.from[c])] =
        group.power == 1 ? scales[c] : std::pow(scales[c], group.power);
  }
  return previous;
}

std::vector<float> foldable_scales(
    const ScaleGroup& group,
    const std::vector<float>& scales,
    const BlockWeights& weights) {
  check_scales(group, scales);
  if (group.kind == ScaleGroup::Previous::linear) {
    return scales;
  }
  const auto& norm = weights.norms.at(group.previous);
  auto wanted = to_array(scales);
  const auto whole = [&](const mx::array& weight) {
    return mx::astype(weight, mx::float32) + mx::array(group.offset);
  };
  auto before = whole(norm);
  auto after = whole(divided(norm, wanted, group.offset));
  auto ratio = before / after;
  // A channel that the norm shuts, or shuts now, has no ratio.
  auto open = mx::isfinite(ratio) && ratio > mx::array(0.0f);
  return to_vector(mx::where(open, ratio, wanted));
}

std::vector<std::string> fold_scales(
    const ScaleGroup& group,
    const std::vector<float>& scales,
    BlockWeights& weights) {
  check_scales(group, scales);
  std::vector<std::string> changed;
  if (group.kind == ScaleGroup::Previous::norm) {
    auto& norm = weights.norms.at(group.previous);
    norm = divided(norm, to_array(scales), group.offset);
    mx::eval(norm);
    changed.push_back(group.previous + ".weight");
    if (group.bias) {
      auto& bias = weights.norms.at(group.previous + ".bias");
      bias = divided(bias, to_array(scales));
      mx::eval(bias);
      changed.push_back(group.previous + ".bias");
    }
  } else {
    auto& previous = weights.linears.at(group.previous);
    auto rows = to_array(previous_scales(group, scales));
    previous.dense =
        mx::astype(*previous.dense, mx::float32) / mx::expand_dims(rows, 1);
    mx::eval(*previous.dense);
    changed.push_back(group.previous + ".weight");
    if (previous.bias) {
      previous.bias = divided(*previous.bias, rows);
      mx::eval(*previous.bias);
      changed.push_back(group.previous + ".bias");
    }
  }
  for (const auto& path : group.linears) {
    auto& dense = *weights.linears.at(path).dense;
    dense = mx::astype(dense, mx::float32) * to_array(scales);
    mx::eval(dense);
    changed.push_back(path + ".weight");
  }
  return changed;
}

}  // namespace pennyweight
