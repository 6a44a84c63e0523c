#include "commands/convert.h"

#include "checkpoint/weight_index.h"
#include "commands/command.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "core/text.h"
#include "eval/float16_check.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "method/plan_modules.h"
#include "model/names/names_spec.h"
#include "run/pins/pinned_widths.h"

namespace pennyweight {

namespace {

void check_options(const ConvertOptions& options) {
  if (options.quantize && options.dequantize) {
    throw argument_error("convert", "choose either --quantize or --dequantize");
  }
  if (options.quant_predicate && options.q_mode != "affine") {
    throw argument_error(
        "convert", "--quant-predicate works with --q-mode affine only");
  }
  bool shaped = options.q_bits || options.q_group_size ||
      options.quant_predicate || options.q_mode != "affine";
  if (shaped && !options.quantize) {
    throw argument_error(
        "convert",
        "--q-bits, --q-group-size, --q-mode and --quant-predicate do nothing "
        "without -q");
  }
  if (!options.pins.empty() && !options.quantize) {
    throw argument_error(
        "convert", "--pin, --at-least and --keep do nothing without -q");
  }
  if (options.quant_predicate && options.q_bits) {
    throw argument_error(
        "convert", "--quant-predicate chooses the bits; leave out --q-bits");
  }
}

std::string summary_of(const ConvertOptions& options) {
  if (!options.quantize) {
    return options.dequantize ? "Expanded from a quantized model."
                              : "The weights as they were.";
  }
  return "Rounded to nearest at %bpw bits a weight, scales included.";
}

// Pins are settled only where something is quantized.
PinnedWidths settle_pins(
    Session& session,
    const Model& model,
    const ConvertOptions& options) {
  if (options.pins.empty()) {
    return {};
  }
  PinnedWidths pins(
      model,
      options.pins,
      {.where = session.command(),
       .common = make_quant_spec(
           options.q_mode, options.q_bits, options.q_group_size)});
  session.note(pins.notes());
  return pins;
}

QuantPlan plan_modules(
    const Model& model,
    const ConvertOptions& options,
    const PinnedWidths& pins) {
  if (options.quant_predicate && model.spec.names &&
      !model.spec.names->recipes) {
    throw argument_error(
        "convert",
        "--quant-predicate is not for model_type " + model.spec.family +
            ", whose layers mlx-lm's recipes don't find");
  }
  if (model.is_rounded()) {
    throw argument_error(
        "convert",
        model.checkpoint.folder().string() +
            " is quantized already; start from the full-precision model, or "
            "expand it first with --dequantize");
  }
  std::vector<PlannedModule> modules;
  for (const auto& module : list_stored_modules(model.spec)) {
    modules.push_back(
        {module.path,
         module.in,
         module.packable,
         module.converts_as,
         module.converts_not});
  }
  auto plan = make_plan(
      modules,
      make_quant_spec(options.q_mode, options.q_bits, options.q_group_size),
      options.quant_predicate.value_or(""),
      block_count(model.spec));
  keep_published(model, plan);
  pins.apply(plan);
  return plan;
}

std::optional<OutputType> output_type(
    const Model& model,
    const ConvertOptions& options) {
  if (!options.dtype) {
    return default_dtype(model);
  }
  return OutputType{asked_dtype("convert", *options.dtype), "--dtype"};
}

ConversionSettings settings_of(
    const Model& model,
    const ConvertOptions& options,
    const PinnedWidths& pins,
    const std::optional<OutputType>& type) {
  const bool expands = model.checkpoint.packed() != nullptr;
  if (options.dequantize && model.quantized.empty() && !expands) {
    throw argument_error(
        "convert",
        model.checkpoint.folder().string() +
            " is not quantized; leave out --dequantize");
  }
  ConversionSettings settings;
  if (type) {
    settings.dtype = type->dtype;
  }
  // Another quantizer's packs are expanded as they are read.
  settings.dequantize = options.dequantize && !model.quantized.empty();
  settings.mtp = !options.drop_mtp;
  if (options.quantize) {
    settings.plan = plan_modules(model, options, pins);
  }
  return settings;
}

// Says in one line which modules the class keeps, and gives the summary's.
std::string say_kept(
    Session& session,
    const std::vector<std::string>& modules,
    const std::string& dtype) {
  if (modules.empty()) {
    return "";
  }
  const auto all = some_of(modules);
  warn(
      session.progress(),
      session.command(),
      all + " are not quantized: " + kClassKeeps);
  return "  kept in " + dtype + ": " + shown(all) + " (" + kClassKeeps + ")\n";
}

/// What became of the modules with a matrix, in the order of the forward pass,
/// in figures and in words; one that was to be quantized and is not is a
/// warning, too.
void describe_modules(
    Session& session,
    const Model& model,
    const Conversion& conversion,
    const ConvertOptions& options,
    const PinnedWidths& pins) {
  auto& report = session.report();
  const std::string dtype = report.figures.at("dtype");
  Json modules = Json::array();
  int64_t quantized = 0;
  std::string kept;
  std::vector<std::string> by_class;  // of which one line says enough
  for (const auto& module : list_stored_modules(model.spec)) {
    Json entry{{"path", module.path}};
    std::optional<QuantSpec> spec;
    std::string reason;
    if (conversion.plan()) {
      const auto& planned = conversion.plan()->at(module.path);
      spec = planned.spec;
      reason = planned.reason;
    } else if (auto it = model.quantized.find(module.path);
               it != model.quantized.end() && !options.dequantize) {
      spec = it->second;
    }
    if (spec) {
      entry["quantization"] = to_json(*spec);
      ++quantized;
    }
    const WidthRule* rule = pins.rule(module.path);
    if (rule) {
      entry["pinned"] = rule->said;
    }
    if (!reason.empty()) {
      entry["kept_because"] = reason;
    }
    if (reason == kClassKeeps) {
      by_class.push_back(module.path);
    } else if (!reason.empty() && !(rule && rule->keep)) {
      kept += "  kept in " + dtype + ": " + shown(module.path) + " (" + reason +
          ")\n";
      warn(
          session.progress(),
          session.command(),
          module.path + " is not quantized: " + reason);
    }
    modules.push_back(std::move(entry));
  }
  kept += say_kept(session, by_class, dtype);
  report.text = std::to_string(quantized) + " of " +
      std::to_string(modules.size()) + " modules quantized, the rest in " +
      dtype + "\n" + pins.text() + kept;
  report.figures["pins"] = pins.json();
  report.figures["modules"] = std::move(modules);
}

// What the cast does that a user should know.
void note_type(Session& session, const Model& model, const OutputType& type) {
  const bool asked = type.from == "--dtype";
  if (const auto cast = describe_cast(model, type); !asked && !cast.empty()) {
    session.note(cast);
  }
  if (becomes_float16(model, type) && model.spec.names) {
    session.note(
        "whether activations fit float16 can't be tried on a model that is "
        "known by names only; --dtype bfloat16 is safe");
  } else if (becomes_float16(model, type)) {
    const auto checked =
        check_float16(model, "use --dtype bfloat16", session.progress());
    session.note(checked.warnings);
    if (checked.tokens > 0) {
      session.report().figures["float16"] = to_json(checked);
    }
  }
}

RunReport run(Session& session, const ConvertOptions& options) {
  convert(session, session.model_folder(options.model), options);
  return session.finish();
}

}  // namespace

void convert(
    Session& session,
    const fs::path& model_folder,
    const ConvertOptions& options) {
  check_options(options);
  Model model = open_by_names(
      model_folder,
      options.assume_family,
      options.stream ? session.shards_of(options.model) : nullptr);
  const auto type = output_type(model, options);
  const auto pins = settle_pins(session, model, options);
  auto settings = settings_of(model, options, pins, type);
  Conversion conversion(model, settings);
  session.check_folders(model_folder, options);
  AtomicFolder output(options.mlx_path, options.force);

  session.describe_input(model);
  auto& report = session.report();
  report.figures["dtype"] = float_name(settings.dtype.value_or(model.dtype));
  report.figures["dtype_from"] = type ? type->from : "";
  report.figures["stored_dtype"] = float_name(model.dtype);
  if (type) {
    note_type(session, model, *type);
  }
  describe_modules(session, model, conversion, options, pins);
  auto written = write_model(
      model,
      conversion,
      output.path(),
      options.model,
      summary_of(options) + pins.sentence(),
      session.command(),
      session.progress());
  report.figures["side_files"] = written.side_files;
  report.figures["fetched_bytes"] = model.checkpoint.fetched_bytes();
  output.commit();
  session.describe_output(options.mlx_path, written);
}

Command convert_command() {
  return make_command<ConvertOptions>(
      "convert",
      "Quantize by rounding to nearest, as mlx_lm.convert does",
      "  pennyweight convert --model Qwen/Qwen3-0.6B --mlx-path out -q\n"
      "  pennyweight convert --model folder --mlx-path out -q --q-bits 3 "
      "--q-group-size 32\n"
      "  pennyweight convert --model folder --mlx-path out -q --q-mode mxfp4\n"
      "  pennyweight convert --model out --mlx-path plain --dequantize\n",
      run);
}

}  // namespace pennyweight
