#include "eval/float16_check.h"
#include "core/json.h"
#include "core/text.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/time_left.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

constexpr size_t kTokens = 64;
// Longer text has larger activations than a few dozen tokens.
constexpr float kNear = kLargestFloat16 / 2;
constexpr const char* kText =
    "The ferry left the harbour at 6:45, two hours late, and nobody on board "
    "seemed to mind.\n\n"
    "def area(radius):\n    return 3.14159 * radius ** 2\n\n"
    "1. Le prix est de 12,50 €. 2. 天気は晴れです。 3. Спасибо!\n";

std::vector<int32_t> sample_tokens(const Model& model) {
  std::vector<int32_t> tokens;
  const auto& folder = model.checkpoint.folder();
  if (fs::exists(folder / "tokenizer.json")) {
    tokens = TextReader(folder).encode(kText);
    std::erase_if(
        tokens, [&](int32_t id) { return id < 0 || id >= model.spec.vocab; });
  }
  for (int64_t i = 1; tokens.size() < kTokens / 2; ++i) {
    tokens.push_back(static_cast<int32_t>(i * 7919 % model.spec.vocab));
  }
  tokens.resize(std::min(tokens.size(), kTokens));
  return tokens;
}

}  // namespace

Float16Check check_float16(
    const Model& model,
    const std::string& remedy,
    const ProgressFn& progress) {
  const auto start = std::chrono::steady_clock::now();
  Float16Check check;
  const auto tokens = sample_tokens(model);
  check.tokens = static_cast<int64_t>(tokens.size());
  check.peaks = float16_peaks(model, tokens, progress);
  const auto on = " on " + std::to_string(tokens.size()) + " tokens";
  const auto& past = check.peaks.overflows;
  if (!past.empty() && !std::isfinite(past.front().largest)) {
    // The weights are not finite, which those that read them say by name.
  } else if (!past.empty()) {
    check.warnings.push_back(
        "float16 will overflow: " + past.front().place + " reaches " +
        three_digits(past.front().largest) + on + ", float16 ends at 65504 (" +
        std::to_string(past.size()) +
        (past.size() == 1 ? " place" : " places") +
        " in all), and mlx-lm's logits will not be finite; " + remedy);
  } else {
    const auto& parts = check.peaks.parts;
    const auto most = std::ranges::max_element(
        parts, {}, [](const auto& part) { return part.largest; });
    if (most->largest > kNear) {
      check.warnings.push_back(
          "float16 may overflow on other text: " + most->place + " reaches " +
          three_digits(most->largest) + on + ", float16 ends at 65504; " +
          remedy);
    }
  }
  check.seconds = seconds_since(start);
  return check;
}

Json to_json(const Float16Check& check) {
  const auto list = [](const std::vector<ActivationPeak>& peaks) {
    Json json = Json::array();
    for (const ActivationPeak& peak : peaks) {
      json.push_back({{"place", peak.place}, {"largest", peak.largest}});
    }
    return json;
  };
  return {
      {"tokens", check.tokens},
      {"parts", list(check.peaks.parts)},
      {"overflows", list(check.peaks.overflows)},
      {"seconds", check.seconds}};
}

}  // namespace pennyweight
