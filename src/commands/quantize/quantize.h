#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "run/plan_options.h"
#include "run/session.h"
#include "run/streamed.h"

namespace pennyweight {

struct QuantizeOptions : OutputOptions, ResumeOptions, StreamOptions {
  PlanOptions plan;
  TargetOptions target;
  std::optional<std::string> recipe;
  std::optional<std::string> time_limit;
  std::optional<std::string> stages;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    PlanOptions::visit(self.plan, option);
    TargetOptions::visit(self.target, option);
    OutputOptions::visit(self, option);
    option(
        {.name = "recipe",
         .help = "Do again what this recipe.json says: widths, stages, text",
         .takes = "RECIPE"},
        self.recipe);
    option(
        {.name = "time-limit",
         .help = "Such as 30m or 2h: stages are cut to what fits, by the "
                 "machine's speed"},
        self.time_limit);
    ResumeOptions::visit(self, option);
    StreamOptions::visit(self, option);
    option(
        {.name = "stages",
         .help =
             "Stages to try, in this order, such as nearest,gptq,dwq: those "
             "of --effort, or any method by its name",
         .advanced = true},
        self.stages);
  }
};

/// invalid_argument, naming it, for a flag that a recipe has the say on: all
/// that affect the result but where the text lies.
void refuse_beside_recipe(
    const Session& session,
    const QuantizeOptions& options);

/// What a stage has come to.
struct StageOutcome {
  ChainStage stage;
  double kl = 0;  // on the validation text
  double seconds = 0;
  bool kept = false;
  std::string note{};
  Json figures = Json::object();
};

}  // namespace pennyweight
