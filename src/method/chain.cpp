#include "method/chain.h"

#include "core/error.h"
#include "method/awq/fold_probe.h"
#include "method/gptq/method.h"
#include "method/learned/method.h"
#include "method/registry.h"

namespace pennyweight {

namespace {

[[noreturn]] void refuse(const std::string& origin, const std::string& what) {
  throw argument_error("stages", origin + ": " + what);
}

ChainStage find_stage(const std::string& name, const std::string& origin) {
  std::string names;
  for (const auto& stage : default_chain()) {
    if (stage.name == name) {
      return stage;
    }
    names += stage.name + ", ";
  }
  for (const auto& entry : methods()) {
    if (entry.name == name) {
      return {name, entry.title};
    }
    if ((", " + names).find(", " + entry.name + ", ") == names.npos) {
      names += entry.name + ", ";
    }
  }
  names.resize(names.size() - 2);
  refuse(
      origin,
      "there is no stage '" + one_line(name, 40) + "'; choose of " + names);
}

LearnedOptions learned_options(const StageSizes& sizes) {
  LearnedOptions options;
  options.steps = sizes.learn_steps;
  return options;
}

}  // namespace

const std::vector<ChainStage>& default_chain() {
  using Kind = ChainStage::Kind;
  static const std::vector<ChainStage> chain{
      {stage::kRtn, "Rounded to nearest", Kind::rtn},
      {stage::kGptq, "GPTQ"},
      {stage::kLearned, "GPTQ, rounding learned block by block"},
      {stage::kDwq, "Scales and biases distilled", Kind::distill}};
  return chain;
}

std::vector<ChainStage> make_chain(
    const std::vector<std::string>& names,
    const std::string& origin) {
  using Kind = ChainStage::Kind;
  std::vector<ChainStage> chain;
  for (const auto& name : names) {
    const auto stage = find_stage(name, origin);
    for (const auto& before : chain) {
      if (before.name == name) {
        refuse(origin, "the stage " + name + " comes twice");
      }
    }
    if (chain.empty() ? stage.kind == Kind::distill
                      : chain.back().kind == Kind::distill) {
      refuse(
          origin,
          std::string("a stage that rounds comes first, and ") + stage::kDwq +
              " last");
    }
    chain.push_back(stage);
  }
  if (chain.empty()) {
    refuse(origin, "no stage is named");
  }
  return chain;
}

bool has_work(const ChainStage& stage, const StageSizes& sizes) {
  if (stage.kind == ChainStage::Kind::distill) {
    return sizes.dwq_sequences > 0;
  }
  return stage.name != stage::kLearned || sizes.learn_steps > 0;
}

StageMethod make_stage(const ChainStage& stage, const StageSizes& sizes) {
  if (stage.name != stage::kGptq && stage.name != stage::kLearned) {
    const auto settings = find_method(stage.name).settings();
    const auto options = visited_to_json(
        [&](const OptionSink& option) { settings->visit(option); }, true);
    return {settings->make(true), {{stage.name, options}}};
  }
  const GptqOptions gptq;
  StageMethod made{
      std::make_shared<GptqMethod>(gptq),
      {{stage::kGptq, options_to_json(gptq, true)},
       {"fold_every", sizes.fold_every}}};
  if (sizes.fold_every > 0) {
    made.method = std::make_shared<FoldProbe>(
        AwqOptions{}, made.method, sizes.fold_every);
  }
  if (stage.name == stage::kLearned) {
    const auto learned = learned_options(sizes);
    made.method = std::make_shared<LearnedMethod>(made.method, learned);
    made.options[stage::kLearned] = options_to_json(learned, true);
  }
  return made;
}

}  // namespace pennyweight
