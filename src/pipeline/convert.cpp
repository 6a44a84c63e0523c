#include "pipeline/convert.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/process.h"
#include "pipeline/conversion.h"
#include "text/tokenizer.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "convert";

void check_options(const ConvertOptions& options) {
  if (options.quantize && options.dequantize) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "choose either --quantize or --dequantize");
  }
  if (options.quant_predicate && options.q_mode != "affine") {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--quant-predicate works with --q-mode affine only");
  }
  bool shaped = options.q_bits || options.q_group_size ||
      options.quant_predicate || options.q_mode != "affine";
  if (shaped && !options.quantize) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--q-bits, --q-group-size, --q-mode and --quant-predicate do nothing "
        "without -q");
  }
  if (options.quant_predicate && options.q_bits) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--quant-predicate chooses the bits; leave out --q-bits");
  }
}

// --force must not replace the very model that is read.
void check_output(const fs::path& model, const fs::path& output) {
  std::error_code ignored;
  auto from = fs::weakly_canonical(model, ignored);
  auto to = fs::weakly_canonical(output, ignored);
  auto [end, unused] =
      std::mismatch(to.begin(), to.end(), from.begin(), from.end());
  if (end == to.end()) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "the output " + output.string() +
            " is the model itself or holds it; choose another --mlx-path");
  }
}

// A damaged tokenizer is found now, not when the output is first used.
void check_tokenizer(const fs::path& folder, const ProgressFn& progress) {
  if (fs::exists(folder / "tokenizer.json")) {
    Tokenizer::load(folder);
  } else {
    warn(
        progress,
        kWhere,
        "the model has no tokenizer.json; what it has is copied unchecked");
  }
}

std::string summary_of(const ConvertOptions& options, double bpw) {
  if (!options.quantize) {
    return options.dequantize ? "Expanded from a quantized model."
                              : "The weights as they were.";
  }
  return "Rounded to nearest at " + std::to_string(bpw).substr(0, 5) +
      " bits a weight, scales included.";
}

// The modules as the report lists them; one that was to be quantized and is
// not is a warning, too.
std::vector<ConvertedModule> list_converted(
    const Model& model,
    const Conversion& conversion,
    bool dequantize,
    const ProgressFn& progress) {
  std::vector<ConvertedModule> modules;
  for (const auto& module : list_modules(model.spec)) {
    ConvertedModule entry{module.path, std::nullopt, ""};
    if (conversion.plan()) {
      const auto& planned = conversion.plan()->at(module.path);
      entry.spec = planned.spec;
      entry.reason = planned.reason;
    } else if (auto it = model.quantized.find(module.path);
               it != model.quantized.end() && !dequantize) {
      entry.spec = it->second;
    }
    if (!entry.reason.empty()) {
      warn(
          progress, kWhere, module.path + " is not quantized: " + entry.reason);
    }
    modules.push_back(std::move(entry));
  }
  return modules;
}

// Returns the bytes of all tensors written.
int64_t write_tensors(
    const Model& model,
    const Conversion& conversion,
    int64_t parameters,
    const fs::path& folder,
    const ProgressFn& progress) {
  int64_t total = 0;
  for (const auto& [name, info] : model.checkpoint.tensors()) {
    total += static_cast<int64_t>(info.bytes);
  }
  ModelWriter writer(folder, conversion.tensors());
  int64_t done = 0;
  for (const auto& [name, info] : model.checkpoint.tensors()) {
    conversion.run(name, writer);
    done += static_cast<int64_t>(info.bytes);
    report(progress, {kWhere, done, total, "bytes"});
  }
  writer.finish(parameters);
  return static_cast<int64_t>(writer.total_bytes());
}

}  // namespace

ConvertReport convert(
    const fs::path& model_folder,
    const ConvertOptions& options,
    const ProgressFn& progress) {
  auto start = std::chrono::steady_clock::now();
  check_options(options);
  check_output(model_folder, options.mlx_path);
  Model model = open_model(model_folder);
  Conversion conversion(model, options);
  check_tokenizer(model_folder, progress);
  AtomicFolder output(options.mlx_path, options.force);

  ConvertReport report;
  report.output = options.mlx_path;
  report.dtype = float_name(conversion.dtype().value_or(model.dtype));
  report.notes = model.spec.notes;
  ModelSize before = model_size(model);
  report.parameters = before.parameters;
  report.bytes_in = before.bytes;
  for (const auto& note : model.spec.notes) {
    warn(progress, kWhere, note);
  }
  report.modules =
      list_converted(model, conversion, options.dequantize, progress);
  // First, since they are checked, and weights take long.
  report.side_files = copy_side_files(model_folder, output.path());
  report.bytes_out = write_tensors(
      model, conversion, report.parameters, output.path(), progress);
  report.bits_per_weight = 8.0 * static_cast<double>(report.bytes_out) /
      static_cast<double>(report.parameters);
  write_file(output.path() / "config.json", conversion.config().dump(4) + "\n");
  write_file(
      output.path() / "README.md",
      model_card(options.model, summary_of(options, report.bits_per_weight)));
  output.commit();
  report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  report.peak_rss = peak_rss();
  return report;
}

Json to_json(const ConvertReport& report) {
  Json json;
  json["output"] = report.output;
  json["dtype"] = report.dtype;
  json["modules"] = Json::array();
  for (const auto& module : report.modules) {
    Json entry{{"path", module.path}};
    if (module.spec) {
      entry["quantization"] = to_json(*module.spec);
    }
    if (!module.reason.empty()) {
      entry["kept_because"] = module.reason;
    }
    json["modules"].push_back(std::move(entry));
  }
  json["parameters"] = report.parameters;
  json["bytes_in"] = report.bytes_in;
  json["bytes"] = report.bytes_out;
  json["bits_per_weight"] = report.bits_per_weight;
  json["seconds"] = report.seconds;
  json["peak_rss"] = report.peak_rss;
  json["side_files"] = report.side_files;
  json["notes"] = report.notes;
  return json;
}

}  // namespace pennyweight
