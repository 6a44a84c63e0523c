#include "run/width_plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/bytes.h"
#include "core/error.h"
#include "export/conversion.h"

namespace pennyweight {

SizeTarget size_target(
    std::optional<double> bits_per_weight,
    const std::optional<std::string>& bytes,
    const std::string& where) {
  if (bytes) {
    return {std::nullopt, parse_bytes(*bytes, "--target-size")};
  }
  if (!bits_per_weight || !(*bits_per_weight > 0 && *bits_per_weight <= 32)) {
    throw Error(
        ErrorCode::invalid_argument,
        where,
        "--target-bpw has to be above 0, and at most 32");
  }
  return {bits_per_weight, std::nullopt};
}

WidthChooser::WidthChooser(
    const Model& model,
    std::vector<Candidate> candidates,
    std::optional<QuantSpec> common)
    : model_(model),
      candidates_(std::move(candidates)),
      common_(std::move(common)) {}

std::optional<std::string> WidthChooser::add(
    const ModuleSpec& module,
    const std::vector<double>& losses) {
  const int item = static_cast<int>(mx::size_of(model_.dtype));
  const int64_t stack = std::max<int64_t>(1, module.count);
  Choice choice{module, {}, {}, "it was chosen to stay in floats"};
  const auto offer = [&](const Candidate& candidate, double loss) {
    const int64_t bytes = candidate
        ? quantized_bytes(*candidate, module.out, module.in, item)
        : module.out * module.in * item;
    choice.candidates.push_back(candidate);
    choice.costs.bytes.push_back(stack * bytes);
    choice.costs.losses.push_back(loss);
  };
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (!candidates_[i] ||
        (module.packable && fits(*candidates_[i], module.in))) {
      offer(candidates_[i], losses[i]);
    }
  }
  std::optional<std::string> note;
  if (choice.candidates.empty()) {
    choice.reason = module.packable
        ? "its rows of " + std::to_string(module.in) +
            " weights divide into no candidate's groups"
        : std::string(kNotPackable);
    note = module.path + " stays in floats: " + choice.reason;
    offer(std::nullopt, 0);
  }
  choices_.push_back(std::move(choice));
  return note;
}

QuantPlan WidthChooser::plan_of(const std::vector<size_t>& chosen) const {
  QuantPlan plan;
  std::map<std::string, int64_t> weights;  // by width
  int64_t most = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto& candidate = choices_[i].candidates[chosen[i]];
    const auto& module = choices_[i].module;
    auto& sum = weights[candidate_name(candidate)];
    sum += module.out * module.in * std::max<int64_t>(1, module.count);
    if (candidate && sum > most) {
      most = sum;
      plan.common = *candidate;
    }
    plan.modules[choices_[i].module.path] = {
        candidate, candidate ? "" : choices_[i].reason};
  }
  plan.common = common_.value_or(plan.common);
  return plan;
}

// What is carried over unread counts towards a size, and not towards bits a
// weight.
int64_t WidthChooser::bytes_of(const QuantPlan& plan, bool with_carried) const {
  ConversionSettings settings;
  settings.dtype = output_dtype(model_);
  settings.plan = plan;
  const Conversion planned(model_, settings);
  int64_t bytes = 0;
  for (const auto& tensor : planned.tensors()) {
    const bool carried = is_among(tensor.name, model_.spec.carried);
    bytes +=
        carried && !with_carried ? 0 : static_cast<int64_t>(plan_bytes(tensor));
  }
  return bytes;
}

WidthPlan WidthChooser::make(const std::vector<size_t>& chosen) const {
  WidthPlan result;
  result.plan = plan_of(chosen);
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto& choice = choices_[i];
    const auto& candidate = choice.candidates[chosen[i]];
    result.modules.push_back(
        {choice.module,
         candidate,
         choice.costs.losses[chosen[i]],
         candidate ? "" : choice.reason});
    result.loss += result.modules.back().loss;
  }
  result.bytes = bytes_of(result.plan, true);
  result.bits_per_weight = 8.0 * double(bytes_of(result.plan, false)) /
      double(model_size(model_).parameters);
  return result;
}

WidthPlan WidthChooser::choose(const SizeTarget& target) const {
  std::vector<Alternatives> costs;
  int64_t modules = 0;  // of the first alternatives
  for (const Choice& choice : choices_) {
    costs.push_back(choice.costs);
    modules += choice.costs.bytes.front();
  }
  const int64_t budget = target.bytes
      ? *target.bytes
      : static_cast<int64_t>(std::floor(
            *target.bits_per_weight / 8 *
            static_cast<double>(model_size(model_).parameters)));
  const auto first = plan_of(std::vector<size_t>(choices_.size(), 0));
  const int64_t others = bytes_of(first, target.bytes.has_value()) - modules;
  return make(choose_alternatives(costs, budget - others));
}

WidthPlan WidthChooser::plan_for(const std::vector<Candidate>& specs) const {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto& own = choices_[i].candidates;
    const auto it = std::find(own.begin(), own.end(), specs[i]);
    if (it == own.end()) {
      throw Error(
          ErrorCode::invalid_argument,
          "widths",
          candidate_name(specs[i]) + " does not fit " +
              choices_[i].module.path);
    }
    chosen.push_back(static_cast<size_t>(it - own.begin()));
  }
  return make(chosen);
}

}  // namespace pennyweight
