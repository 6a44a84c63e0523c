#include "commands/inspect.h"

#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

struct InspectOptions {
  std::string model;
  std::string family;
  bool kernels = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "Folder of the model, or a hub id org/name[@revision]",
         .positional = true,
         .required = true},
        self.model);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.family);
    option(
        {.name = "kernels",
         .help = "Try what each shape of the model runs on here, and how "
                 "fast"},
        self.kernels);
  }
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (auto extent : shape) {
    text += (text.empty() ? "" : " x ") + std::to_string(extent);
  }
  return text;
}

std::string describe(const std::vector<KernelRow>& kernels) {
  std::vector<std::vector<std::string>> rows{
      {"product", "shape", "GF/s", "runs on"}};
  for (const auto& row : kernels) {
    rows.push_back(
        {row.what,
         row.shape,
         fixed(row.operations_per_second / 1e9, 0),
         row.implementation});
  }
  return "kernels: " + describe_kernels() + "\n\n" + table(rows);
}

std::string describe(const InspectReport& report) {
  std::string text = shown(report.folder) + ": " + shown(report.family) + ", " +
      fixed(static_cast<double>(report.parameters) / 1e6, 1) +
      " M parameters, " + std::to_string(report.blocks) + " blocks, hidden " +
      std::to_string(report.hidden) + ", vocabulary " +
      std::to_string(report.vocab) + (report.tied ? ", tied head" : "") + "\n" +
      fixed(report.bits_per_weight, 3) + " bits a weight, " +
      human_bytes(static_cast<double>(report.bytes)) + ", " + report.type +
      "\n\n";
  std::vector<std::vector<std::string>> rows{
      {"module", "shape", "type", "bits", "group", "bytes", "share"}};
  for (const auto& row : report.rows) {
    const auto& quantized = row.quantized;
    rows.push_back(
        {row.path,
         shape_text(row.shape),
         row.type,
         quantized ? std::to_string(quantized->bits)
                   : fixed(row.bits_per_weight, 0),
         quantized ? std::to_string(quantized->group_size) : "-",
         std::to_string(row.bytes),
         fixed(100 * row.share, 2) + "%"});
  }
  text += table(rows);
  if (!report.kernels.empty()) {
    text += "\n" + describe(report.kernels);
  }
  for (const auto& note : report.notes) {
    text += "note: " + shown(note) + "\n";
  }
  return text;
}

}  // namespace

Command inspect_command() {
  return {
      "inspect",
      "Family, parameters, and a table of modules",
      "  pennyweight inspect Qwen/Qwen3-0.6B\n"
      "  pennyweight inspect folder --json modules.json\n"
      "  pennyweight inspect folder --kernels\n",
      [](CLI::App& app) {
        auto options = std::make_shared<InspectOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          auto report = inspect(
              resolve_model(options->model, console.progress()),
              options->family,
              options->kernels);
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
