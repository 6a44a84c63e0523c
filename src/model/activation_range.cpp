#include "model/activation_range.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>
#include <limits>
#include <set>

#include "model/weights.h"

namespace pennyweight {

namespace {

mx::array largest(const mx::array& x) {
  return mx::astype(mx::max(mx::abs(x)), mx::float32);
}

// The linears whose outputs are not watched as a whole: an infinity in them
// does no harm, or does so in a part only, which is watched where it is made.
std::set<std::string> list_harmless(const BlockSpec& spec) {
  std::set<std::string> paths;
  const auto add = [&](const std::optional<LinearSpec>& linear) {
    if (linear) {
      paths.insert(linear->path);
    }
  };
  if (spec.moe) {
    add(spec.moe->router);
    add(spec.moe->shared_gate);
  }
  if (spec.attention.gated) {
    add(spec.attention.q);
  }
  if (!spec.attention.softplus_gate) {
    add(spec.attention.gate);
  }
  if (const auto& delta = spec.attention.delta) {
    add(delta->ba);
    add(delta->b);
    add(delta->a);
  }
  return paths;
}

// The largest Euclidean norm of the vectors along the last axis.
float longest(const mx::array& x) {
  const auto wide = mx::astype(x, mx::float32);
  return std::sqrt(mx::max(mx::sum(mx::square(wide), -1)).item<float>());
}

// [length, size] of one head of one sequence.
mx::array head_of(const mx::array& x, int batch, int head) {
  return mx::contiguous(mx::reshape(
      mx::slice(
          x,
          {batch, 0, head, 0},
          {batch + 1, x.shape(1), head + 1, x.shape(3)}),
      {x.shape(1), x.shape(3)}));
}

// Which keys each query sees, bool [length, keys].
mx::array visible(const AttentionSpec& attention, int length, int keys) {
  const auto query = mx::expand_dims(mx::arange(keys - length, keys), 1);
  const auto key = mx::expand_dims(mx::arange(0, keys), 0);
  auto seen = key <= query;
  if (attention.window > 0) {
    seen = seen && query - key < mx::array(attention.window);
  }
  return seen;
}

}  // namespace

void ActivationRange::see(const std::string& place, const mx::array& x) {
  seen_.emplace_back(place, largest(x));
}

std::vector<ActivationPeak> ActivationRange::take(const mx::array& result) {
  std::vector<mx::array> arrays{result};
  for (const auto& [place, peak] : seen_) {
    arrays.push_back(peak);
  }
  mx::eval(arrays);
  std::vector<ActivationPeak> peaks;
  for (auto& [place, peak] : seen_) {
    peaks.push_back({std::move(place), peak.item<float>()});
  }
  seen_.clear();
  return peaks;
}

void watch_range(
    const BlockSpec& spec,
    BlockWeights& weights,
    ActivationRange& range) {
  const auto harmless = list_harmless(spec);
  weights.range = &range;
  for (auto& [path, linear] : weights.linears) {
    if (!harmless.contains(path)) {
      linear.range = &range;
      linear.place = "the output of " + path;
    }
  }
}

void see_scores(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& q,
    const mx::array& k) {
  const float bound = attention.scale * longest(q) * longest(k);
  if (bound < kFloat16Overflow / 2 || !std::isfinite(bound)) {
    return;  // no score is near; infinite queries and keys are seen themselves
  }
  const auto seen = visible(attention, q.shape(1), k.shape(1));
  const auto hidden = mx::array(-std::numeric_limits<float>::infinity());
  const int group = q.shape(2) / k.shape(2);
  auto most = mx::array(0.0f);
  for (int batch = 0; batch < q.shape(0); ++batch) {
    for (int head = 0; head < q.shape(2); ++head) {
      const auto scores = ops::linear(
          head_of(q, batch, head),
          head_of(k, batch, head / group),
          std::nullopt,
          mx::float32);
      // Only the largest counts: one that is negative and overflows is as good
      // as masked.
      most = mx::maximum(most, mx::max(mx::where(seen, scores, hidden)));
      mx::eval(most);
    }
  }
  weights.see(
      "the attention scores before " + attention.o.path,
      most * mx::array(attention.scale));
}

}  // namespace pennyweight
