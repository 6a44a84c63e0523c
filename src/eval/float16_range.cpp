#include "eval/float16_range.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "core/text.h"
#include "model/decoder.h"
#include "pass/model_pass.h"

namespace pennyweight {

namespace {

constexpr int kRangeTile = 16384;

const ActivationPeak* first_overflow(const std::vector<ActivationPeak>& peaks) {
  auto it = std::ranges::find_if(peaks, &ActivationPeak::overflows);
  return it == peaks.end() ? nullptr : &*it;
}

void refuse(const ActivationPeak* peak) {
  if (!peak) {
    return;
  }
  const auto reached = std::isfinite(peak->largest)
      ? " reaches " + three_digits(peak->largest) + ", float16 ends at 65504"
      : " passes 65504, where float16 ends";
  throw numeric_error(
      "evaluate",
      "float16 overflows: " + peak->place + reached +
          ", so mlx-lm's logits are not finite; convert the model to "
          "bfloat16, or give --dtype float32 for its figures where nothing "
          "overflows");
}

float largest(const mx::array& x) {
  return mx::max(mx::abs(mx::astype(x, mx::float32))).item<float>();
}

// The longest row, and with it what rows give by those of another matrix.
float longest(const mx::array& rows) {
  const auto wide = mx::astype(rows, mx::float32);
  return std::sqrt(mx::max(mx::sum(mx::square(wide), -1)).item<float>());
}

// mlx-lm makes the logits first and scales them then; here the final norm
// holds the scale.
float largest_logit(
    const DecoderSpec& spec,
    const mx::array& x,
    const LinearWeights& tile) {
  const float unscaled = std::max(1.0f, 1 / spec.logit_scale);
  const auto dense =
      tile.dense ? *tile.dense : ops::dequantize(*tile.packed, mx::float32);
  const float bound =
      longest(x) * longest(dense) + (tile.bias ? largest(*tile.bias) : 0.0f);
  if (bound * unscaled < kFloat16Overflow / 2) {
    return bound * unscaled;  // far from it: no need to know better
  }
  return unscaled * largest(tile(x, mx::float32));
}

ActivationPeak most_of(const std::vector<ActivationPeak>& peaks) {
  ActivationPeak most;
  for (const ActivationPeak& peak : peaks) {
    if (most.place.empty() || !(peak.largest <= most.largest)) {
      most = peak;
    }
  }
  return most;
}

std::string name_of_head(const DecoderSpec& spec) {
  return "the logits of " + (spec.head ? spec.head->path : spec.embedding);
}

}  // namespace

bool runs_in_float16(const Model& model) {
  const auto is_float16 = [&](const std::string& tensor) {
    return !model.tensors.contains(tensor) ||
        !mx::issubdtype(model.tensors.info(tensor).dtype, mx::floating) ||
        model.tensors.info(tensor).dtype == mx::float16;
  };
  const auto holds = [&](const std::string& path) {
    return std::ranges::all_of(
        std::vector{".weight", ".bias", ".scales", ".biases"},
        [&](const char* suffix) { return is_float16(path + suffix); });
  };
  bool all = model.dtype == mx::float16 && holds(model.spec.final_norm.path);
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    all = all && holds(module.path);
  }
  for (const BlockSpec& block : model.spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      all = all && holds(norm.path);
    }
  }
  return all;
}

void OverflowGuard::embedded(const mx::array& x) {
  range_.see("the embedding " + model_.spec.embedding, x);
  const auto peaks = range_.take(x);
  refuse(first_overflow(peaks));
}

void OverflowGuard::enter(const BlockSpec& block, BlockWeights& weights) {
  watch_range(block, weights, range_);
}

void OverflowGuard::leave(
    const BlockSpec& block,
    const mx::array& before,
    const mx::array& after) {
  const auto peaks = range_.take(after);
  const auto* found = first_overflow(peaks);
  if (!found) {
    return;
  }
  // Again in float32, which says how large it is.
  auto weights = load_block(model_, block.index, mx::float32);
  watch_range(block, weights, range_);
  const auto sizes =
      range_.take(run_block(block, weights, before, {.dtype = mx::float32}));
  const auto* size = first_overflow(sizes);
  refuse(size ? size : found);
}

void OverflowGuard::normed(const mx::array& x) {
  const ActivationPeak peak{
      "the output of " + model_.spec.final_norm.path,
      largest(x) / model_.spec.logit_scale};
  refuse(peak.overflows() ? &peak : nullptr);
}

void OverflowGuard::logits(const mx::array& x, const LinearWeights& tile) {
  if (model_.spec.logit_cap > 0) {
    return;  // the tanh of an infinity is 1
  }
  const ActivationPeak peak{
      name_of_head(model_.spec), largest_logit(model_.spec, x, tile)};
  refuse(peak.overflows() ? &peak : nullptr);
}

Float16Peaks float16_peaks(
    const Model& model,
    const std::vector<int32_t>& tokens,
    const ProgressFn& progress) {
  const DecoderSpec& spec = model.spec;
  Float16Peaks result;
  const auto add = [&](const std::vector<ActivationPeak>& peaks) {
    result.parts.push_back(most_of(peaks));
    std::ranges::copy_if(
        peaks, std::back_inserter(result.overflows), [](const auto& peak) {
          return peak.overflows();
        });
  };
  const auto tables = load_embedding_and_head(model, model.dtype);
  const auto count = static_cast<int>(tokens.size());
  auto all = MemoryBudget::unlimited();
  ModelPass pass(
      model,
      {{mx::array(tokens.begin(), {1, count}, mx::int32), {}, count}},
      {.dtype = model.dtype},
      all);
  pass.embed(&tables);
  ActivationRange range;
  range.see("the embedding " + spec.embedding, pass.state(0));
  add(range.take(pass.state(0)));
  const auto blocks = static_cast<int64_t>(spec.blocks.size());
  const auto load = [&](const BlockSpec& block) {
    report(progress, {"float16", block.index, blocks, "blocks"});
    auto weights = load_block(model, block.index, model.dtype);
    watch_range(block, weights, range);
    return weights;
  };
  pass.forward(
      load, {}, [&](const BlockSpec&, size_t, const auto&, const auto& y) {
        add(range.take(y));
      });
  const auto normed = pass.head_rows(tables, 0);
  std::vector<ActivationPeak> last{
      {"the output of " + spec.final_norm.path,
       largest(normed) / spec.logit_scale}};
  if (spec.logit_cap == 0) {
    float most = 0;
    for (int first = 0; first < spec.vocab; first += kRangeTile) {
      const int count =
          static_cast<int>(std::min<int64_t>(kRangeTile, spec.vocab - first));
      most = std::max(
          most, largest_logit(spec, normed, tables.head.rows(first, count)));
    }
    last.push_back({name_of_head(spec), most});
  }
  add(last);
  report(progress, {"float16", blocks, blocks, "blocks"});
  return result;
}

}  // namespace pennyweight
