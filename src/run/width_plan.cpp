#include "run/width_plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/bytes.h"
#include "core/error.h"
#include "core/text.h"
#include "export/conversion.h"
#include "run/bytes_read.h"

namespace pennyweight {

SizeTarget size_target(
    std::optional<double> bits_per_weight,
    const std::optional<std::string>& bytes,
    const std::string& where) {
  if (bytes) {
    return {std::nullopt, parse_bytes(*bytes, "--target-size")};
  }
  if (!bits_per_weight || !(*bits_per_weight > 0 && *bits_per_weight <= 32)) {
    throw argument_error(
        where, "--target-bpw has to be above 0, and at most 32");
  }
  return {bits_per_weight, std::nullopt};
}

std::vector<Candidate> with_pinned(
    std::vector<Candidate> candidates,
    const PinnedWidths& pins) {
  for (const auto& spec : pins.widths()) {
    if (std::ranges::count(candidates, Candidate(spec)) == 0) {
      candidates.push_back(spec);
    }
  }
  return candidates;
}

WidthChooser::WidthChooser(
    const Model& model,
    std::vector<Candidate> candidates,
    WidthWishes wishes)
    : model_(model),
      candidates_(std::move(candidates)),
      wishes_(std::move(wishes)) {}

// What it is; what a flag says of its width was settled before.
WidthChooser::Choice WidthChooser::published_choice(
    const ModuleSpec& module,
    int item) const {
  Choice choice{module, {module.published}, {}, ""};
  choice.costs.bytes.push_back(
      std::max<int64_t>(1, module.count) *
      quantized_bytes(*module.published, module.out, module.in, item));
  choice.costs.losses.push_back(0);
  if (const auto* rule = wishes_.pins.rule(module.path)) {
    choice.said = rule->said;
  }
  return choice;
}

std::optional<std::string> WidthChooser::add(
    const ModuleSpec& module,
    const std::vector<double>& losses) {
  const int item = static_cast<int>(mx::size_of(model_.dtype));
  if (module.published) {
    choices_.push_back(published_choice(module, item));
    return std::nullopt;
  }
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
  const WidthRule* rule = wishes_.pins.rule(module.path);
  bool forbidden = false;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (!candidates_[i] ||
        (module.packable && fits(*candidates_[i], module.in))) {
      if (rule && !rule->allows(candidates_[i])) {
        forbidden = true;
      } else {
        offer(candidates_[i], losses[i]);
      }
    }
  }
  if (rule && module.packable) {
    choice.said = rule->said;
    choice.pinned = rule->keep || rule->pinned;
    choice.reason = rule->keep ? rule->said : choice.reason;
  }
  if (choice.candidates.empty() && choice.pinned) {
    offer(rule->pinned, 0);
  }
  if (choice.candidates.empty() && forbidden) {
    throw argument_error(
        "widths",
        rule->said + ": " + module.path +
            " is offered no width of so many bits; --pin gives it one, or "
            "--candidates offers more");
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
    const bool published = choices_[i].module.published.has_value();
    auto& sum = weights[candidate_name(candidate)];
    sum += module.out * module.in * std::max<int64_t>(1, module.count);
    if (candidate && !published && sum > most) {
      most = sum;
      plan.common = *candidate;
    }
    plan.modules[choices_[i].module.path] = {
        candidate, candidate ? "" : choices_[i].reason, published};
  }
  plan.common = wishes_.common.value_or(plan.common);
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
         candidate ? "" : choice.reason,
         choice.said});
    result.loss += result.modules.back().loss;
  }
  result.bytes = bytes_of(result.plan, true);
  result.bits_per_weight = 8.0 * double(bytes_of(result.plan, false)) /
      double(model_size(model_).parameters);
  result.bytes_read = bytes_read(model_, result.plan);
  return result;
}

namespace {

std::string taken(int64_t count, const char* what, int64_t bytes) {
  return count == 0 ? ""
                    : "the " + std::to_string(count) + " " + what + " take " +
          std::to_string(bytes) + ", ";
}

// In the unit that the target has; bits rounded so that it can be met.
std::string size_text(
    const SizeTarget& target,
    int64_t bytes,
    int64_t parameters,
    double (*round)(double)) {
  const double bits = 8 * double(bytes) / double(parameters);
  return target.bytes ? std::to_string(bytes) + " bytes"
                      : fixed(round(1000 * bits) / 1000, 3) + " bits a weight";
}

}  // namespace

// What takes the room is what a user has to know.
void WidthChooser::require_room(
    const SizeTarget& target,
    int64_t room,
    int64_t others) const {
  struct Taken {
    int64_t count = 0;
    int64_t bytes = 0;
  };
  Taken published, pinned, free;
  for (const Choice& choice : choices_) {
    Taken& own = choice.module.published ? published
        : choice.pinned                  ? pinned
                                         : free;
    ++own.count;
    own.bytes += std::ranges::min(choice.costs.bytes);
  }
  const int64_t least = published.bytes + pinned.bytes + free.bytes;
  if (least <= room) {
    return;
  }
  throw argument_error(
      "widths",
      "the target of " + std::to_string(room + others) + " bytes is " +
          std::to_string(least - room) +
          " below the smallest that the candidates allow: " +
          taken(published.count, "published packed modules", published.bytes) +
          taken(pinned.count, "pinned modules alone", pinned.bytes) +
          "the other modules " + std::to_string(free.bytes) +
          " at least, and what is never packed " + std::to_string(others) +
          "; raise it to " +
          size_text(
              target,
              least + others,
              model_size(model_).parameters,
              std::ceil) +
          (pinned.count > 0 ? ", or pin less" : ", or allow fewer bits"));
}

std::string WidthChooser::about_largest(const SizeTarget& target) const {
  // A size is met from below, within a thousandth.
  constexpr double kMet = 1.001;
  std::vector<size_t> largest;
  for (const Choice& choice : choices_) {
    const auto& bytes = choice.costs.bytes;
    largest.push_back(
        static_cast<size_t>(std::ranges::max_element(bytes) - bytes.begin()));
  }
  const int64_t bytes = bytes_of(plan_of(largest), target.bytes.has_value());
  const int64_t asked = bytes_asked(target);
  if (double(asked) <= kMet * double(bytes)) {
    return "";
  }
  return "the target of " + std::to_string(asked) +
      " bytes is above the largest that the candidates allow, " +
      std::to_string(bytes) + ": at most " +
      size_text(target, bytes, model_size(model_).parameters, std::floor) +
      " can be met";
}

int64_t WidthChooser::bytes_asked(const SizeTarget& target) const {
  return target.bytes
      ? *target.bytes
      : static_cast<int64_t>(std::floor(
            *target.bits_per_weight / 8 *
            static_cast<double>(model_size(model_).parameters)));
}

WidthPlan WidthChooser::choose(const SizeTarget& target) const {
  std::vector<Alternatives> costs;
  int64_t modules = 0;  // of the first alternatives
  for (const Choice& choice : choices_) {
    costs.push_back(choice.costs);
    modules += choice.costs.bytes.front();
  }
  const int64_t budget = bytes_asked(target);
  const auto first = plan_of(std::vector<size_t>(choices_.size(), 0));
  const int64_t others = bytes_of(first, target.bytes.has_value()) - modules;
  require_room(target, budget - others, others);
  auto chosen = choose_alternatives(costs, budget - others);
  if (wishes_.prefer_active > 0) {
    const auto plain = make(chosen);
    const auto shares = read_shares(model_.spec);
    const double rate = wishes_.prefer_active * plain.loss / plain.bytes_read;
    for (size_t i = 0; i < choices_.size(); ++i) {
      const double share = shares.at(choices_[i].module.path);
      for (size_t j = 0; j < costs[i].bytes.size(); ++j) {
        costs[i].losses[j] += rate * share * double(costs[i].bytes[j]);
      }
    }
    chosen = choose_alternatives(costs, budget - others);
  }
  return make(chosen);
}

WidthPlan WidthChooser::plan_for(const std::vector<Candidate>& specs) const {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto& own = choices_[i].candidates;
    const auto it = std::find(own.begin(), own.end(), specs[i]);
    if (it == own.end()) {
      throw argument_error(
          "widths",
          candidate_name(specs[i]) + " does not fit " +
              choices_[i].module.path);
    }
    chosen.push_back(static_cast<size_t>(it - own.begin()));
  }
  return make(chosen);
}

}  // namespace pennyweight
