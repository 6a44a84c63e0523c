#include "commands/inspect.h"

#include "model/model.h"

namespace pennyweight {

namespace {

std::string dtype_name(mx::Dtype dtype) {
  if (dtype == mx::bfloat16) {
    return "bfloat16";
  }
  return dtype == mx::float16 ? "float16" : "float32";
}

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

class Table {
 public:
  Table(const Model& model, InspectReport& report)
      : model_(model), report_(report) {}

  void add(
      const std::string& path,
      const std::string& kind,
      std::vector<int64_t> shape) {
    InspectRow row;
    row.path = path;
    row.kind = kind;
    row.shape = std::move(shape);
    auto size = module_size(model_, path);
    row.parameters = size.parameters;
    row.bytes = size.bytes;
    row.bits_per_weight =
        8.0 * static_cast<double>(size.bytes) / size.parameters;
    row.share = static_cast<double>(size.bytes) / report_.bytes;
    if (auto it = model_.quantized.find(path); it != model_.quantized.end()) {
      row.quantized = it->second;
      row.type = it->second.mode;
    } else {
      row.type = dtype_name(model_.tensors.info(path + ".weight").dtype);
    }
    report_.rows.push_back(std::move(row));
  }

  void add(const ModuleSpec& module) {
    std::vector<int64_t> shape{module.out, module.in};
    if (module.count > 0) {
      shape.insert(shape.begin(), module.count);
    }
    add(module.path, kind_name(module.kind), std::move(shape));
  }

  void add(const NormSpec& norm) {
    add(norm.path, "norm", {norm.size});
  }

  void add(const ParameterSpec& parameter) {
    const auto& info = model_.tensors.info(parameter.name);
    InspectRow row;
    row.path = parameter.name;
    row.kind = "parameter";
    row.shape = parameter.shape;
    row.type = dtype_name(info.dtype);
    row.bytes = static_cast<int64_t>(info.bytes);
    row.parameters = row.bytes / int64_t{size_of(info.dtype)};
    row.bits_per_weight = 8.0 * size_of(info.dtype);
    row.share = static_cast<double>(row.bytes) / report_.bytes;
    report_.rows.push_back(std::move(row));
  }

 private:
  const Model& model_;
  InspectReport& report_;
};

}  // namespace

InspectReport inspect(
    const fs::path& folder,
    const std::string& assumed_family,
    bool kernels) {
  auto model = open_model(folder, assumed_family);
  auto size = model_size(model);
  InspectReport report;
  report.folder = folder.string();
  report.family = model.spec.family;
  report.blocks = static_cast<int64_t>(model.spec.blocks.size());
  report.hidden = model.spec.hidden;
  report.vocab = model.spec.vocab;
  report.tied = !model.spec.head;
  report.type = dtype_name(model.dtype);
  report.parameters = size.parameters;
  report.bytes = size.bytes;
  report.bits_per_weight = size.bits_per_weight;
  report.notes = model.spec.notes;

  Table table(model, report);
  auto modules = list_homes(model.spec);
  table.add(modules.front());
  for (const BlockSpec& block : model.spec.blocks) {
    for (const ModuleSpec& module : list_homes(block)) {
      table.add(module);
    }
    for (const NormSpec& norm : list_norms(block)) {
      table.add(norm);
    }
    for (const ParameterSpec& parameter : list_parameters(block)) {
      table.add(parameter);
    }
  }
  table.add(model.spec.final_norm);
  if (model.spec.head) {
    table.add(modules.back());
  }
  if (kernels) {
    report.kernels = try_kernels(model);
  }
  return report;
}

Json to_json(const InspectReport& report) {
  Json rows = Json::array();
  for (const InspectRow& row : report.rows) {
    Json json = {
        {"path", row.path},
        {"kind", row.kind},
        {"shape", row.shape},
        {"type", row.type},
        {"parameters", row.parameters},
        {"bytes", row.bytes},
        {"bits_per_weight", row.bits_per_weight},
        {"share", row.share}};
    if (row.quantized) {
      json["bits"] = row.quantized->bits;
      json["group_size"] = row.quantized->group_size;
    }
    rows.push_back(json);
  }
  return {
      {"folder", report.folder},
      {"family", report.family},
      {"blocks", report.blocks},
      {"hidden", report.hidden},
      {"vocab", report.vocab},
      {"tied", report.tied},
      {"type", report.type},
      {"parameters", report.parameters},
      {"bytes", report.bytes},
      {"bits_per_weight", report.bits_per_weight},
      {"modules", rows},
      {"shapes", to_json(report.kernels)},
      {"notes", report.notes}};
}

}  // namespace pennyweight
