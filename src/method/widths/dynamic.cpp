// Mixed precision by sensitivity, as mlx_lm's dynamic_quant: the alignment
//   sum g (Q_low(W) - Q_k(W)),  g = d KL / d W at Q_low.
// With e_k = Q_k(W) - W and the loss 1/2 e^T H e, g = H e_low, so that
//   L_low = 1/2 g e_low,  L_k ~ L_low |e_k|^2 / |e_low|^2.
#include "method/widths/dynamic.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/text.h"
#include "kernels/threads.h"
#include "ops/rounding/quantize.h"

namespace pennyweight {

namespace {

constexpr int64_t kChunk = int64_t{1} << 16;  // sums are made by these

int parse_number(std::string_view text, const std::string& entry) {
  const auto value = number_in<int>(text);
  if (!value) {
    throw argument_error(
        "dynamic",
        "candidate '" + one_line(entry, 40) +
            "' is neither bits:group_size, such as 4:64, nor bf16");
  }
  return *value;
}

mx::array rounded(const mx::array& weight, const QuantSpec& spec) {
  return ops::dequantize(quantize(weight, spec), mx::float32);
}

RoundingEffect effect_of(
    const mx::array& weight,
    const mx::array& low,
    const mx::array& gradient,
    const mx::array& other) {
  const auto* w = weight.data<float>();
  const auto* l = low.data<float>();
  const auto* g = gradient.data<float>();
  const auto* q = other.data<float>();
  const auto count = static_cast<int64_t>(weight.size());
  std::vector<RoundingEffect> parts(
      static_cast<size_t>((count + kChunk - 1) / kChunk));
  kernels::parallel_tasks(static_cast<int64_t>(parts.size()), [&](int64_t i) {
    RoundingEffect sum;
    const int64_t end = std::min(count, (i + 1) * kChunk);
    for (int64_t j = i * kChunk; j < end; ++j) {
      sum.alignment += double(g[j]) * (double(l[j]) - double(q[j]));
      const double error = double(q[j]) - double(w[j]);
      sum.error += error * error;
    }
    parts[static_cast<size_t>(i)] = sum;
  });
  RoundingEffect total;
  for (const auto& part : parts) {
    total.alignment += part.alignment;
    total.error += part.error;
  }
  return total;
}

class Knapsack {
 public:
  Knapsack(const std::vector<Alternatives>& modules, int64_t budget)
      : modules_(modules), left_(budget) {
    for (const auto& module : modules) {
      const auto least =
          std::min_element(module.bytes.begin(), module.bytes.end());
      chosen_.push_back(static_cast<size_t>(least - module.bytes.begin()));
      smallest_.push_back(*least);
      left_ -= *least;
    }
    if (left_ < 0) {
      throw argument_error(
          "dynamic",
          "the target is " + std::to_string(-left_) +
              " bytes below the smallest that the candidates allow; raise it, "
              "or allow fewer bits");
    }
  }

  std::vector<size_t> solve() {
    fill();
    constexpr int kMostExchanges = 200;
    for (int i = 0; i < kMostExchanges && exchange(); ++i) {
    }
    return chosen_;
  }

 private:
  // By dynamic programming over what is left, in units of a 50,000th of it,
  // each alternative's bytes rounded up; exchanges find what that leaves.
  void fill() {
    constexpr int64_t kUnits = 50'000;
    const int64_t unit = std::max<int64_t>(1, (left_ + kUnits - 1) / kUnits);
    const auto units = static_cast<size_t>(left_ / unit);
    // The least loss of the modules so far within so many units.
    std::vector<double> least(units + 1, 0.0);
    std::vector<std::vector<uint8_t>> picks;
    for (size_t i = 0; i < modules_.size(); ++i) {
      std::vector<double> next(units + 1, HUGE_VAL);
      std::vector<uint8_t> pick(units + 1, 0);
      for (size_t at = 0; at < modules_[i].bytes.size(); ++at) {
        const size_t more = units_of(i, at, unit);
        const double own = loss(i, at);
        for (size_t j = more; j <= units; ++j) {
          if (least[j - more] + own < next[j]) {
            next[j] = least[j - more] + own;
            pick[j] = static_cast<uint8_t>(at);
          }
        }
      }
      least = std::move(next);
      picks.push_back(std::move(pick));
    }
    std::vector<size_t> found(modules_.size());
    size_t room = units;
    for (size_t i = modules_.size(); i-- > 0;) {
      found[i] = picks[i][room];
      room -= units_of(i, found[i], unit);
    }
    for (size_t i = 0; i < modules_.size(); ++i) {
      move(i, found[i]);
    }
  }

  // What an alternative takes beyond the module's smallest.
  size_t units_of(size_t module, size_t at, int64_t unit) const {
    const int64_t more = bytes(module, at) - smallest_[module];
    return static_cast<size_t>((more + unit - 1) / unit);
  }

  bool move(size_t module, size_t to) {
    const int64_t more = bytes(module, to) - bytes(module, chosen_[module]);
    if (more > left_) {
      return false;
    }
    left_ -= more;
    chosen_[module] = to;
    return true;
  }

  struct Change {
    size_t module, to;
  };

  // The best change of one module, or of two of which the first gives way.
  bool exchange() {
    double best = 1e-15;
    std::vector<Change> changes;
    for (size_t i = 0; i < modules_.size(); ++i) {
      for (size_t a = 0; a < modules_[i].bytes.size(); ++a) {
        const double gain = loss(i, chosen_[i]) - loss(i, a);
        const int64_t room = left_ + bytes(i, chosen_[i]) - bytes(i, a);
        if (room >= 0 && gain > best) {
          best = gain;
          changes = {{i, a}};
        }
        if (gain < 0 && room > left_) {
          pair_with({i, a}, gain, room, best, changes);
        }
      }
    }
    for (const Change& change : changes) {
      move(change.module, change.to);
    }
    return !changes.empty();
  }

  // What is gained best by the bytes that `first` gives.
  void pair_with(
      const Change& first,
      double gain,
      int64_t room,
      double& best,
      std::vector<Change>& changes) const {
    for (size_t j = 0; j < modules_.size(); ++j) {
      for (size_t b = 0; j != first.module && b < modules_[j].bytes.size();
           ++b) {
        const double both = gain + loss(j, chosen_[j]) - loss(j, b);
        if (both > best && bytes(j, b) - bytes(j, chosen_[j]) <= room) {
          best = both;
          changes = {first, {j, b}};
        }
      }
    }
  }

  int64_t bytes(size_t module, size_t at) const {
    return modules_[module].bytes[at];
  }
  double loss(size_t module, size_t at) const {
    return modules_[module].losses[at];
  }

  const std::vector<Alternatives>& modules_;
  int64_t left_;
  std::vector<int64_t> smallest_;  // bytes
  std::vector<size_t> chosen_;
};

}  // namespace

std::string candidate_name(const Candidate& candidate) {
  return candidate ? width_name(*candidate) : "floats";
}

std::vector<Candidate> parse_candidates(const std::string& list) {
  std::vector<Candidate> candidates;
  for (const auto& entry : cut(list, ',')) {
    Candidate candidate;
    if (entry != "bf16" && entry != "fp16" && entry != "fp32" &&
        entry != "floats") {
      const size_t colon = std::min(entry.find(':'), entry.size());
      const std::string_view text = entry;
      candidate = make_quant_spec(
          "affine",
          parse_number(text.substr(0, colon), entry),
          colon == entry.size() ? 64
                                : parse_number(text.substr(colon + 1), entry));
    }
    if (std::find(candidates.begin(), candidates.end(), candidate) ==
        candidates.end()) {
      candidates.push_back(candidate);
    }
  }
  return candidates;
}

std::vector<RoundingEffect> rounding_effects(
    const mx::array& weight,
    const mx::array& low,
    const mx::array& gradient,
    const std::vector<Candidate>& candidates) {
  const auto dense = [](const mx::array& x) {
    auto result = mx::contiguous(mx::astype(x, mx::float32));
    mx::eval(result);
    return result;
  };
  const auto whole = dense(weight);
  const auto at = dense(low);
  const auto by_weight = dense(gradient);
  std::vector<RoundingEffect> effects;
  for (const auto& candidate : candidates) {
    effects.push_back(effect_of(
        whole,
        at,
        by_weight,
        candidate ? dense(rounded(weight, *candidate)) : whole));
  }
  return effects;
}

std::vector<double> estimate_losses(
    double whole,
    double low_error,
    const std::vector<RoundingEffect>& effects) {
  std::vector<double> losses;
  for (const auto& effect : effects) {
    losses.push_back(
        low_error > 0 ? 0.5 * std::max(0.0, whole) * effect.error / low_error
                      : 0.0);
  }
  return losses;
}

std::vector<size_t> choose_alternatives(
    const std::vector<Alternatives>& modules,
    int64_t budget) {
  return Knapsack(modules, budget).solve();
}

}  // namespace pennyweight
