#include "pipeline/convert.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "core/error.h"
#include "export/model_writer.h"
#include "model/model.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "convert";

bool is_float(mx::Dtype dtype) {
  return mx::issubdtype(dtype, mx::floating);
}

std::optional<mx::Dtype> dtype_by_name(const std::string& name) {
  if (name == "float32") {
    return mx::float32;
  }
  if (name == "float16") {
    return mx::float16;
  }
  if (name == "bfloat16") {
    return mx::bfloat16;
  }
  return std::nullopt;
}

std::string dtype_name(mx::Dtype dtype) {
  return dtype == mx::float32 ? "float32"
      : dtype == mx::float16  ? "float16"
                              : "bfloat16";
}

int64_t peak_rss() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
}

bool ends_with_any(
    const std::string& name,
    std::initializer_list<const char*> ends) {
  return std::ranges::any_of(
      ends, [&](const char* end) { return name.ends_with(end); });
}

// One run: what is written for each tensor of the source, planned first (the
// writer wants all shapes), then done in the same order.
class Conversion {
 public:
  Conversion(const Model& model, const ConvertOptions& options)
      : model_(model), options_(options) {
    choose_dtype();
    if (options.quantize) {
      choose_plan();
    }
    for (const auto& [name, info] : model_.checkpoint.tensors()) {
      if (!is_dropped(name)) {
        plan_tensor(name, info);
      }
    }
  }

  const std::vector<TensorPlan>& tensors() const {
    return tensors_;
  }
  const std::optional<QuantPlan>& plan() const {
    return plan_;
  }
  std::optional<mx::Dtype> dtype() const {
    return dtype_;
  }

  Json quantization() const {
    if (plan_) {
      return to_json(*plan_);
    }
    const Json& config = model_.checkpoint.config();
    if (options_.dequantize || model_.quantized.empty()) {
      return nullptr;
    }
    return config.contains("quantization") ? config["quantization"]
                                           : config["quantization_config"];
  }

  // Writes what becomes of one tensor of the source.
  void run(const std::string& name, ModelWriter& writer) const {
    if (is_dropped(name)) {
      return;
    }
    auto module = module_of(name);
    if (expands(module)) {
      if (name.ends_with(".weight")) {
        writer.write(name, expanded(module));
      }
      return;
    }
    auto tensor = cast(model_.checkpoint.load(name));
    if (is_float(tensor.dtype())) {
      require_finite(tensor, name);
    }
    if (const QuantSpec* spec = spec_of(name)) {
      auto packed = pennyweight::quantize(tensor, *spec);
      writer.write(name, packed.codes);
      writer.write(module + ".scales", packed.scales);
      if (packed.biases) {
        writer.write(module + ".biases", *packed.biases);
      }
    } else {
      writer.write(name, tensor);
    }
  }

 private:
  static std::string module_of(const std::string& name) {
    return name.substr(0, name.rfind('.'));
  }

  bool is_dropped(const std::string& name) const {
    const auto& dropped = model_.spec.dropped;
    return std::ranges::find(dropped, name) != dropped.end();
  }

  // As mlx_lm.convert: --dtype, else the config's torch_dtype if it is one of
  // the three, else every tensor as stored.
  void choose_dtype() {
    std::string name = options_.dtype.value_or("");
    const Json& config = model_.checkpoint.config();
    if (auto it = config.find("torch_dtype");
        name.empty() && it != config.end() && it->is_string()) {
      name = it->get<std::string>();
    }
    dtype_ = dtype_by_name(name);
  }

  void choose_plan() {
    if (!model_.quantized.empty()) {
      throw Error(
          ErrorCode::invalid_argument,
          kWhere,
          model_.checkpoint.folder().string() +
              " is quantized already; start from the full-precision model, or "
              "expand it first with --dequantize");
    }
    std::vector<PlannedModule> modules;
    for (const auto& module : list_modules(model_.spec)) {
      modules.push_back({module.path, module.in});
    }
    auto common = make_quant_spec(
        options_.q_mode, options_.q_bits, options_.q_group_size);
    plan_ = make_plan(
        modules,
        common,
        options_.quant_predicate.value_or(""),
        static_cast<int>(model_.spec.blocks.size()));
  }

  bool expands(const std::string& module) const {
    return options_.dequantize && model_.quantized.contains(module);
  }

  const QuantSpec* spec_of(const std::string& name) const {
    if (!plan_ || !name.ends_with(".weight")) {
      return nullptr;
    }
    auto it = plan_->modules.find(module_of(name));
    bool planned = it != plan_->modules.end() && it->second.spec;
    return planned ? &*it->second.spec : nullptr;
  }

  mx::array cast(const mx::array& tensor) const {
    return dtype_ && is_float(tensor.dtype()) ? mx::astype(tensor, *dtype_)
                                              : tensor;
  }

  mx::Dtype cast(mx::Dtype stored) const {
    return dtype_ && is_float(stored) ? *dtype_ : stored;
  }

  // As mlx_lm.convert: the scales are cast first, then MLX expands.
  mx::array expanded(const std::string& module) const {
    const QuantSpec& spec = model_.quantized.at(module);
    auto part = [&](const char* name) {
      return cast(model_.checkpoint.load(module + name));
    };
    std::optional<mx::array> biases;
    if (spec.mode == "affine") {
      biases = part(".biases");
    }
    auto dense = mx::dequantize(
        part(".weight"),
        part(".scales"),
        biases,
        spec.group_size,
        spec.bits,
        spec.mode);
    require_finite(dense, module);
    return dense;
  }

  void plan_tensor(const std::string& name, const TensorInfo& info) {
    auto module = module_of(name);
    if (expands(module)) {
      plan_expanded(name, info, module);
      return;
    }
    auto shape = info.shape;
    auto dtype = cast(info.dtype);
    const QuantSpec* spec = spec_of(name);
    if (!spec) {
      tensors_.push_back({name, dtype, shape});
      return;
    }
    auto codes = shape;
    codes.back() = shape.back() * spec->bits / 32;
    auto groups = shape;
    groups.back() = shape.back() / spec->group_size;
    bool affine = spec->mode == "affine";
    tensors_.push_back({name, mx::uint32, codes});
    tensors_.push_back(
        {module + ".scales", affine ? dtype : mx::uint8, groups});
    if (affine) {
      tensors_.push_back({module + ".biases", dtype, groups});
    }
  }

  void plan_expanded(
      const std::string& name,
      const TensorInfo& info,
      const std::string& module) {
    if (!ends_with_any(name, {".weight", ".scales", ".biases"})) {
      tensors_.push_back({name, cast(info.dtype), info.shape});
      return;
    }
    if (!name.ends_with(".weight")) {
      return;
    }
    const QuantSpec& spec = model_.quantized.at(module);
    auto shape = info.shape;
    shape.back() = shape.back() * 32 / spec.bits;
    auto scales = model_.checkpoint.info(module + ".scales").dtype;
    // The fp modes hold no float type; MLX expands them to bfloat16.
    auto dtype = is_float(scales) ? cast(scales) : mx::bfloat16;
    tensors_.push_back({name, dtype, shape});
  }

  const Model& model_;
  const ConvertOptions& options_;
  std::optional<mx::Dtype> dtype_;
  std::optional<QuantPlan> plan_;
  std::vector<TensorPlan> tensors_;
};

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
}

Json config_of(const Model& model, const Conversion& conversion, bool cast) {
  auto config =
      output_config(model.checkpoint.config(), conversion.quantization());
  for (const auto& [key, value] : model.spec.config_patch.items()) {
    config[key] = value;
  }
  if (cast && conversion.dtype()) {
    config[config.contains("dtype") ? "dtype" : "torch_dtype"] =
        dtype_name(*conversion.dtype());
  }
  return config;
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

}  // namespace

ConvertReport convert(
    const fs::path& model_folder,
    const ConvertOptions& options,
    const ProgressFn& progress) {
  auto start = std::chrono::steady_clock::now();
  check_options(options);
  Model model = open_model(model_folder);
  Conversion conversion(model, options);
  AtomicFolder output(options.mlx_path, options.force);

  ConvertReport report;
  report.output = options.mlx_path;
  report.dtype = dtype_name(conversion.dtype().value_or(model.dtype));
  report.notes = model.spec.notes;
  ModelSize before = model_size(model);
  report.parameters = before.parameters;
  report.bytes_in = before.bytes;
  for (const auto& note : model.spec.notes) {
    warn(progress, kWhere, note);
  }
  report.modules =
      list_converted(model, conversion, options.dequantize, progress);

  ModelWriter writer(output.path(), conversion.tensors());
  int64_t done = 0;
  for (const auto& [name, info] : model.checkpoint.tensors()) {
    conversion.run(name, writer);
    done += static_cast<int64_t>(info.bytes);
    pennyweight::report(
        progress,
        {kWhere, std::min(done, before.bytes), before.bytes, "bytes"});
  }
  writer.finish(report.parameters);

  report.bytes_out = static_cast<int64_t>(writer.total_bytes());
  report.bits_per_weight = 8.0 * static_cast<double>(report.bytes_out) /
      static_cast<double>(report.parameters);
  auto config = config_of(model, conversion, options.dtype.has_value());
  write_file(output.path() / "config.json", config.dump(4) + "\n");
  report.side_files = copy_side_files(model_folder, output.path());
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
