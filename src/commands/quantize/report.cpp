#include "commands/quantize/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/bytes.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "core/text.h"
#include "core/version.h"
#include "export/front_matter.h"
#include "export/model_card.h"
#include "export/mtp.h"
#include "export/published.h"
#include "kernels/threads.h"
#include "pass/sample.h"
#include "run/kernel_report.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

constexpr int kPromptTokens = 32;
constexpr int kShownTokens = 48;
constexpr size_t kSamples = 3;

Json fidelity_json(const Evaluation& found) {
  const auto& against = *found.reference;
  return {
      {"tokens", found.tokens},
      {"perplexity", found.perplexity.value},
      {"perplexity_reference", against.perplexity.value},
      {"kl_mean", against.kl.mean.value},
      {"kl_stderr", against.kl.mean.standard_error},
      {"kl_median", against.kl.median},
      {"kl_p99", against.kl.p99},
      {"top1", against.top1.value}};
}

Json modules_json(const WidthPlan& widths) {
  Json modules = Json::array();
  for (const auto& own : widths.modules) {
    const auto& module = own.module;
    std::string name = module.path;
    const auto mark = "." + std::to_string(module.block) + ".";
    if (const auto at = name.find(mark);
        module.block >= 0 && at < name.size()) {
      name = name.substr(at + mark.size());
    }
    Json entry{
        {"path", module.path},
        {"block", module.block},
        {"name", name},
        {"bits", own.spec ? Json(own.spec->bits) : Json()},
        {"group_size", own.spec ? Json(own.spec->group_size) : Json()},
        {"parameters",
         module.out * module.in * std::max<int64_t>(1, module.count)},
        {"loss", own.loss}};
    if (!own.reason.empty()) {
      entry["reason"] = own.reason;
    }
    if (!own.said.empty()) {
      entry["pinned"] = own.said;
    }
    if (own.module.published) {
      entry["published"] = true;
      entry["reason"] = "it is published packed, and stays so";
    }
    modules.push_back(std::move(entry));
  }
  return modules;
}

// Each block's error on held-out text, by stage.
Json blocks_json(const std::vector<StageOutcome>& stages) {
  std::map<int64_t, Json> blocks;
  for (const auto& stage : stages) {
    const auto list = stage.figures.find("blocks");
    if (list == stage.figures.end()) {
      continue;
    }
    int64_t index = 0;
    for (const Json& json : *list) {
      const auto block = block_figures_from_json(json);
      if (const auto error = block.error()) {
        auto& own = blocks[index];
        own["index"] = index;
        own["errors"][stage.stage.name] = *error;
        const auto rtn = block.held_out_error.find(kRtn);
        if (rtn != block.held_out_error.end()) {
          own["errors"][stage::kRtn] = rtn->second;
        }
      }
      ++index;
    }
  }
  Json json = Json::array();
  for (auto& [index, block] : blocks) {
    json.push_back(std::move(block));
  }
  return json;
}

Json dwq_json(const StageOutcome& stage) {
  const Json& figures = stage.figures;
  if (!figures.contains("curve")) {
    return nullptr;
  }
  return {
      {"start", figures.at("start_kl")},
      {"best", figures.at("best_kl")},
      {"best_step", figures.at("best_step")},
      {"curve", figures.at("curve")}};
}

/// How both models go on.
Json samples_json(const Presentation& shown, const fs::path& folder) {
  const auto& context = shown.context;
  TokenSequences prompts;
  for (const auto& sequence : context.mix.report) {
    if (prompts.size() < kSamples && sequence.size() >= kPromptTokens) {
      prompts.push_back({sequence.begin(), sequence.begin() + kPromptTokens});
    }
  }
  // A streamed model's files would come anew for each token.
  if (prompts.empty() || context.model.checkpoint.is_streamed()) {
    return nullptr;
  }
  const auto quantized = open_model(folder, context.options.assume_family);
  const auto full = continue_sequences(
      context.model, prompts, kShownTokens, context.progress);
  const auto other =
      continue_sequences(quantized, prompts, kShownTokens, context.progress);
  TextReader reader(context.model_folder);
  Json samples = Json::array();
  for (size_t i = 0; i < prompts.size(); ++i) {
    samples.push_back(
        {{"prompt", reader.decode(prompts[i])},
         {"reference", reader.decode(full[i])},
         {"quantized", reader.decode(other[i])}});
  }
  return samples;
}

Json stages_json(const std::vector<StageOutcome>& all) {
  Json stages = Json::array();
  for (const auto& outcome : all) {
    if (!std::isfinite(outcome.kl)) {
      continue;  // the notes say so
    }
    stages.push_back(
        {{"name", outcome.stage.name},
         {"title", outcome.stage.title},
         {"kl", outcome.kl},
         {"seconds", outcome.seconds},
         {"kept", outcome.kept},
         {"note", outcome.note}});
  }
  return stages;
}

// Estimated KL of plans from `low` to `high` bits a weight.
Json frontier_points(const WidthChooser& widths, double low, double high) {
  constexpr int kPoints = 15;
  Json points = Json::array();
  for (int i = 0; i < kPoints; ++i) {
    const double at = low + (high - low) * i / (kPoints - 1);
    try {
      const auto plan = widths.choose({at, std::nullopt});
      points.push_back(
          {{"bits_per_weight", plan.bits_per_weight},
           {"kl", plan.loss},
           {"label", "estimated"},
           {"measured", false}});
    } catch (const Error& error) {
      if (error.code() != ErrorCode::invalid_argument) {
        throw;
      }
      // Below the least that the candidates allow.
    }
  }
  return points;
}

}  // namespace

std::string machine_name() {
  return std::to_string(kernels::thread_count()) + " threads, " +
      describe_kernels();
}

Json page_data(const Presentation& shown, const fs::path& quantized) {
  const auto& result = shown.result;
  const auto& context = shown.context;
  Json page{
      {"model", fs::path(context.options.model).filename().string()},
      {"output", fs::path(shown.options.mlx_path).filename().string()},
      {"version", version()},
      {"parameters", result.parameters},
      {"bytes_in", result.bytes_in},
      {"bytes_out", result.bytes_out},
      {"bits_per_weight", result.bits_per_weight},
      {"effort", shown.options.recipe ? "of a recipe" : context.options.effort},
      {"seconds", result.seconds},
      {"peak_rss", result.peak_rss},
      {"machine", machine_name()},
      {"settings", options_to_json(shown.options, true)},
      {"data", to_json(context.mix)},
      {"fidelity", fidelity_json(shown.fidelity)},
      {"stages", stages_json(shown.stages)},
      {"modules", modules_json(context.widths)},
      {"blocks", blocks_json(shown.stages)},
      {"pins", shown.pins.json()},
      {"bytes_read", context.widths.bytes_read},
      {"notes", result.notes}};
  if (shown.options.target.target_bpw) {
    page["target"] = {{"bits_per_weight", *shown.options.target.target_bpw}};
  } else if (shown.options.target.target_size) {
    page["target"] = {
        {"bytes",
         parse_bytes(*shown.options.target.target_size, "--target-size")}};
  }
  if (shown.frontier) {
    page["frontier"] = frontier_points(
        *shown.frontier,
        0.6 * result.bits_per_weight,
        1.5 * result.bits_per_weight);
    for (const auto& stage : page["stages"]) {
      page["frontier"].push_back(
          {{"bits_per_weight", result.bits_per_weight},
           {"kl", stage["kl"]},
           {"label", stage["title"]},
           {"measured", true}});
    }
  }
  for (const auto& outcome : shown.stages) {
    if (outcome.stage.kind == ChainStage::Kind::distill) {
      page[stage::kDwq] = dwq_json(outcome);
    }
  }
  page["samples"] = samples_json(shown, quantized);
  return page;
}

Json result_figures(const Presentation& shown, const Json& page) {
  Json stages = Json::array();
  for (const auto& outcome : shown.stages) {
    stages.push_back(
        {{"name", outcome.stage.name},
         {"kl", outcome.kl},
         {"seconds", outcome.seconds},
         {"kept", outcome.kept},
         {"note", outcome.note},
         {"figures", outcome.figures}});
  }
  const auto& against = *shown.fidelity.reference;
  return {
      {"kl", against.kl.mean.value},
      {"perplexity", shown.fidelity.perplexity.value},
      {"perplexity_reference", against.perplexity.value},
      {"top1", against.top1.value},
      {"pins", shown.pins.json()},
      {"bytes_read", shown.context.widths.bytes_read},
      {"fetched_bytes", shown.context.model.checkpoint.fetched_bytes()},
      {"stages", stages},
      {"page", page}};
}

std::string result_text(const Presentation& shown) {
  std::vector<std::vector<std::string>> rows{
      {"stage", "KL", "seconds", "kept"}};
  for (const auto& outcome : shown.stages) {
    rows.push_back(
        {outcome.stage.name,
         fixed(outcome.kl, 4),
         fixed(outcome.seconds, 1),
         outcome.kept ? "yes" : "no"});
  }
  const auto& against = *shown.fidelity.reference;
  return shown.pins.text() + table(rows) + "\nbytes of weights read a token: " +
      human_bytes(shown.context.widths.bytes_read) +
      "\non text that no stage has seen: KL " +
      fixed(against.kl.mean.value, 4) + ", perplexity " +
      fixed(against.perplexity.value, 3) + " -> " +
      fixed(shown.fidelity.perplexity.value, 3) + ", same likeliest token " +
      fixed(100 * against.top1.value, 1) +
      "%\nlook at report.html in the output; recipe.json does it again\n";
}

void write_card(const Presentation& shown, const fs::path& folder) {
  const auto& result = shown.result;
  const auto& against = *shown.fidelity.reference;
  ModelCard card;
  card.source = shown.context.options.model;
  card.base =
      read_front_matter(shown.context.model_folder / "README.md").values;
  card.quantization =
      read_json(folder / "config.json").value("quantization", Json());
  card.summary = "Quantized for MLX at " + fixed(result.bits_per_weight, 3) +
      " bits a weight, scales included; each module's width and each stage "
      "were chosen by what they cost on text." +
      shown.pins.sentence();
  card.fidelity = {
      {"bits a weight", fixed(result.bits_per_weight, 3)},
      {"size", fixed(double(result.bytes_out) / 1e6, 2) + " MB"},
      {"weights read a token",
       fixed(shown.context.widths.bytes_read / 1e6, 2) + " MB"},
      {"KL to the original", fixed(against.kl.mean.value, 4)},
      {"perplexity", fixed(shown.fidelity.perplexity.value, 3)},
      {"perplexity of the original", fixed(against.perplexity.value, 3)},
      {"same likeliest token", fixed(100 * against.top1.value, 1) + " %"},
      {"measured on",
       std::to_string(shown.fidelity.tokens) + " tokens of " +
           shown.context.mix.source + " that no stage has seen"}};
  for (const auto& outcome : shown.stages) {
    card.stages.push_back({outcome.stage.title, outcome.kl, outcome.kept});
  }
  card.mtp = describe_mtp(result.mtp);
  card.packed = packed_words(shown.context.model);
  card.recipe = true;
  card.report = true;
  write_file(folder / "README.md", model_card(card));
}

}  // namespace pennyweight
