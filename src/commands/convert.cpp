#include "commands/convert.h"

#include <chrono>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/process.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "run/check_output.h"

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

std::string summary_of(const ConvertOptions& options) {
  if (!options.quantize) {
    return options.dequantize ? "Expanded from a quantized model."
                              : "The weights as they were.";
  }
  return "Rounded to nearest at %bpw bits a weight, scales included.";
}

QuantPlan plan_modules(const Model& model, const ConvertOptions& options) {
  if (!model.quantized.empty() && !model.published_packed) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        model.checkpoint.folder().string() +
            " is quantized already; start from the full-precision model, or "
            "expand it first with --dequantize");
  }
  std::vector<PlannedModule> modules;
  for (const auto& module : list_homes(model.spec)) {
    modules.push_back(
        {module.path, module.in, module.packable, module.converts_as});
  }
  auto plan = make_plan(
      modules,
      make_quant_spec(options.q_mode, options.q_bits, options.q_group_size),
      options.quant_predicate.value_or(""),
      static_cast<int>(model.spec.blocks.size()));
  keep_published(model, plan);
  return plan;
}

std::optional<OutputType> output_type(
    const Model& model,
    const ConvertOptions& options) {
  if (!options.dtype) {
    return default_dtype(model);
  }
  const auto dtype = float_by_name(*options.dtype);
  if (!dtype) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "--dtype " + one_line(*options.dtype, 40) +
            " is none of float16, bfloat16, float32");
  }
  return OutputType{*dtype, "--dtype"};
}

ConversionSettings settings_of(
    const Model& model,
    const ConvertOptions& options,
    const std::optional<OutputType>& type) {
  if (options.dequantize && model.quantized.empty()) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        model.checkpoint.folder().string() +
            " is not quantized; leave out --dequantize");
  }
  ConversionSettings settings;
  if (type) {
    settings.dtype = type->dtype;
  }
  settings.dequantize = options.dequantize;
  if (options.quantize) {
    settings.plan = plan_modules(model, options);
  }
  return settings;
}

// The modules as the report lists them; one that was to be quantized and is
// not is a warning, too.
std::vector<ConvertedModule> list_converted(
    const Model& model,
    const Conversion& conversion,
    bool dequantize,
    const ProgressFn& progress) {
  std::vector<ConvertedModule> modules;
  for (const auto& module : list_homes(model.spec)) {
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

// What the cast does that a user should know.
void note_type(
    const Model& model,
    const OutputType& type,
    ConvertReport& report,
    const ProgressFn& progress) {
  const bool asked = type.from == "--dtype";
  if (const auto cast = describe_cast(model, type); !asked && !cast.empty()) {
    report.notes.push_back(cast);
  }
  if (becomes_float16(model, type)) {
    report.float16 = check_float16(model, "use --dtype bfloat16", progress);
    report.notes.insert(
        report.notes.end(),
        report.float16.warnings.begin(),
        report.float16.warnings.end());
  }
}

}  // namespace

ConvertReport convert(
    const fs::path& model_folder,
    const ConvertOptions& options,
    const ProgressFn& progress) {
  auto start = std::chrono::steady_clock::now();
  check_options(options);
  Model model = open_model(model_folder, options.assume_family);
  const auto type = output_type(model, options);
  auto settings = settings_of(model, options, type);
  Conversion conversion(model, settings);
  check_folders(
      kWhere, model_folder, options.mlx_path, options.force, true, progress);
  AtomicFolder output(options.mlx_path, options.force);

  ConvertReport report;
  report.output = options.mlx_path;
  report.dtype = float_name(settings.dtype.value_or(model.dtype));
  report.stored_dtype = float_name(model.dtype);
  report.dtype_from = type ? type->from : "";
  report.notes = model.spec.notes;
  if (type) {
    note_type(model, *type, report, progress);
  }
  for (const auto& note : report.notes) {
    warn(progress, kWhere, note);
  }
  ModelSize before = model_size(model);
  report.parameters = before.parameters;
  report.bytes_in = before.bytes;
  report.modules =
      list_converted(model, conversion, options.dequantize, progress);
  auto written = write_model(
      model,
      conversion,
      output.path(),
      options.model,
      summary_of(options),
      kWhere,
      progress);
  report.side_files = written.side_files;
  report.bytes_out = written.bytes;
  report.bits_per_weight = written.bits_per_weight;
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
  json["dtype_from"] = report.dtype_from;
  json["stored_dtype"] = report.stored_dtype;
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
  if (report.float16.tokens > 0) {
    json["float16"] = to_json(report.float16);
  }
  return json;
}

}  // namespace pennyweight
