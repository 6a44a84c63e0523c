#include "commands/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "export/output_type.h"
#include "model/model.h"
#include "model/names/names_spec.h"
#include "run/kernel_report.h"
#include "run/options.h"
#include "run/pins/pinned_widths.h"

namespace pennyweight {

namespace {

struct InspectOptions : SourceOptions {
  bool kernels = false;
  PinOptions pins;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option, true);
    option(
        {.name = "kernels",
         .help = "Try what each shape of the model runs on here, and how "
                 "fast"},
        self.kernels);
    PinOptions::visit(self.pins, option);
  }
};

std::string kind_name(ModuleSpec::Kind kind) {
  switch (kind) {
    case ModuleSpec::Kind::embedding:
      return "embedding";
    case ModuleSpec::Kind::router:
      return "router";
    case ModuleSpec::Kind::head:
      return "head";
    case ModuleSpec::Kind::linear:
      return "linear";
  }
  return "";
}

std::string shape_text(const Json& shape) {
  std::string text;
  for (const auto& extent : shape) {
    text += (text.empty() ? "" : " x ") + extent.dump();
  }
  return text;
}

/// A row for each module with a matrix, norm and parameter, in the order of the
/// forward pass, for a program and for a reader.
class ModuleTable {
 public:
  ModuleTable(const Model& model, const PinnedWidths& pins)
      : model_(model), pins_(pins), total_(double(model_size(model).bytes)) {
    if (!pins.empty()) {
      cells_.front().push_back("asked for");
    }
    if (model.spec.names) {
      add_all(model.spec);
      return;
    }
    auto modules = list_stored_modules(model.spec);
    for (const ModuleSpec& module : modules) {
      if (module.block < 0 && module.kind != ModuleSpec::Kind::head) {
        add(module);
      }
    }
    for (const BlockSpec& block : model.spec.blocks) {
      for (const ModuleSpec& module : list_stored_modules(block)) {
        add(module);
      }
      for (const NormSpec& norm : list_norms(block)) {
        add(norm);
      }
      for (const ParameterSpec& parameter : list_parameters(block)) {
        add(parameter);
      }
    }
    for (const NormSpec& norm : list_outer_norms(model.spec)) {
      add(norm);
    }
    if (model.spec.head) {
      add(modules.back());
    }
  }

  const Json& json() const {
    return json_;
  }
  std::string text() const {
    return table(cells_);
  }

 private:
  void add(const ModuleSpec& module) {
    Json shape = {module.out, module.in};
    if (module.count > 0) {
      shape.insert(shape.begin(), module.count);
    }
    add_module(module.path, kind_name(module.kind), shape);
    json_.back()["role"] = role_name(module.role);
    if (const auto* rule = pins_.rule(module.path)) {
      json_.back()["pinned"] = asked_for(*rule);
      cells_.back().back() = asked_for(*rule);
    }
  }

  // Of a model that is known by names, which have no order of a forward pass.
  void add_all(const DecoderSpec& spec) {
    for (const ModuleSpec& module : list_stored_modules(spec)) {
      add(module);
    }
    for (const ParameterSpec& parameter : list_parameters(spec)) {
      add(parameter);
    }
  }

  static std::string asked_for(const WidthRule& rule) {
    return rule.keep  ? "unquantized"
        : rule.pinned ? width_name(*rule.pinned)
                      : "at least " + std::to_string(rule.at_least);
  }

  void add(const NormSpec& norm) {
    add_module(norm.path, "norm", {norm.size});
  }

  void add(const ParameterSpec& parameter) {
    const auto& info = model_.tensors.info(parameter.name);
    const auto bytes = static_cast<int64_t>(info.bytes);
    add_row(
        parameter.name,
        "parameter",
        parameter.shape,
        float_name(info.dtype),
        {bytes, bytes / int64_t{size_of(info.dtype)}},
        std::nullopt);
  }

  void add_module(
      const std::string& path,
      const std::string& kind,
      const Json& shape) {
    const auto it = model_.quantized.find(path);
    const bool packed = it != model_.quantized.end();
    add_row(
        path,
        kind,
        shape,
        packed ? it->second.mode
               : float_name(model_.tensors.info(path + ".weight").dtype),
        module_size(model_, path),
        packed ? std::optional(it->second) : std::nullopt);
  }

  void add_row(
      const std::string& path,
      const std::string& kind,
      const Json& shape,
      const std::string& type,
      const ModuleSize& size,
      const std::optional<QuantSpec>& spec) {
    const double bits = 8.0 * double(size.bytes) / double(size.parameters);
    const double share = double(size.bytes) / total_;
    Json row{
        {"path", path},
        {"kind", kind},
        {"shape", shape},
        {"type", type},
        {"parameters", size.parameters},
        {"bytes", size.bytes},
        {"bits_per_weight", bits},
        {"share", share}};
    if (spec) {
      row["bits"] = spec->bits;
      row["group_size"] = spec->group_size;
    }
    json_.push_back(std::move(row));
    cells_.push_back(
        {path,
         shape_text(shape),
         type,
         spec ? std::to_string(spec->bits) : fixed(bits, 0),
         spec ? std::to_string(spec->group_size) : "-",
         std::to_string(size.bytes),
         fixed(100 * share, 2) + "%"});
    if (!pins_.empty()) {
      cells_.back().push_back("");
    }
  }

  const Model& model_;
  const PinnedWidths& pins_;
  double total_;
  Json json_ = Json::array();
  std::vector<std::vector<std::string>> cells_{
      {"module", "shape", "type", "bits", "group", "bytes", "share"}};
};

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

/// What a checkpoint holds.
RunReport run(Session& session, const InspectOptions& options) {
  const auto folder = session.model_folder(options.model);
  const auto model = open_by_names(folder, options.assume_family);
  if (options.kernels && model.spec.names) {
    session.refuse("--kernels: " + model.spec.notes.back());
  }
  const auto size = model_size(model);
  const PinnedWidths pins(model, options.pins, {.where = session.command()});
  session.note(pins.notes());
  const ModuleTable modules(model, pins);
  const auto type = float_name(model.dtype);
  const int64_t blocks = block_count(model.spec);
  const bool tied =
      model.spec.names ? model.spec.names->tied : !model.spec.head;
  auto& report = session.report();
  report.parameters = size.parameters;
  report.notes.insert(
      report.notes.end(), model.spec.notes.begin(), model.spec.notes.end());
  session.describe_packing(model);
  report.figures = {
      {"folder", folder.string()},
      {"family", model.spec.family},
      {"blocks", blocks},
      {"hidden", model.spec.hidden},
      {"vocab", model.spec.vocab},
      {"tied", tied},
      {"type", type},
      {"bytes", size.bytes},
      {"bits_per_weight", size.bits_per_weight},
      {"modules", modules.json()},
      {"pins", pins.json()},
      {"shapes", Json::array()}};
  report.text = shown(folder.string()) + ": " + shown(model.spec.family) +
      ", " + fixed(double(size.parameters) / 1e6, 1) + " M parameters, " +
      std::to_string(blocks) + " blocks, hidden " +
      std::to_string(model.spec.hidden) + ", vocabulary " +
      std::to_string(model.spec.vocab) + (tied ? ", tied head" : "") + "\n" +
      fixed(size.bits_per_weight, 3) + " bits a weight, " +
      human_bytes(double(size.bytes)) + ", " + type + "\n\n" + pins.text() +
      modules.text();
  if (options.kernels) {
    const auto kernels = try_kernels(model, session.progress());
    report.figures["shapes"] = to_json(kernels);
    report.text += "\n" + describe(kernels);
  }
  report.text += notes_text(report);
  return report;
}

}  // namespace

Command inspect_command() {
  return make_command<InspectOptions>(
      "inspect",
      "Family, parameters, and a table of modules",
      "  pennyweight inspect Qwen/Qwen3-0.6B\n"
      "  pennyweight inspect folder --json modules.json\n"
      "  pennyweight inspect folder --kernels\n",
      run);
}

}  // namespace pennyweight
