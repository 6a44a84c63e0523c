#include "export/output_type.h"

#include <mlx/ops.h>

#include <map>

#include "core/json.h"
#include "eval/float16_check.h"

namespace pennyweight {

namespace {

/// The value of a key that is there and not null.
const Json* value_of(const Json& object, const char* key) {
  auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

const Json* text_config(const Json& config) {
  const Json* text = value_of(config, "text_config");
  return text && text->is_object() ? text : nullptr;
}

std::optional<OutputType> named(const Json& value, const char* from) {
  auto dtype = value.is_string() ? float_by_name(value.get<std::string>())
                                 : std::nullopt;
  return dtype ? std::optional(OutputType{*dtype, from}) : std::nullopt;
}

void rename_in(Json& object, const std::string& name) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (object.contains(key)) {
      object[key] = name;
    }
  }
}

}  // namespace

std::string float_name(mx::Dtype dtype) {
  return dtype == mx::float32 ? "float32"
      : dtype == mx::float16  ? "float16"
                              : "bfloat16";
}

std::optional<mx::Dtype> float_by_name(const std::string& name) {
  for (mx::Dtype dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    if (name == float_name(dtype)) {
      return dtype;
    }
  }
  return std::nullopt;
}

mx::Dtype asked_dtype(const std::string& where, const std::string& name) {
  const auto dtype = float_by_name(name);
  if (!dtype) {
    throw argument_error(
        where,
        "--dtype " + one_line(name, 40) +
            " is none of float16, bfloat16, float32");
  }
  return *dtype;
}

std::optional<OutputType> default_dtype(const Model& model) {
  const Json& config = model.checkpoint.config();
  if (const Json* value = value_of(config, "torch_dtype")) {
    return named(*value, "torch_dtype");
  }
  if (const Json* text = text_config(config)) {
    if (const Json* value = value_of(*text, "dtype")) {
      return named(*value, "text_config.dtype");
    }
  }
  if (const Json* value = value_of(config, "dtype")) {
    return named(*value, "dtype");
  }
  return std::nullopt;
}

std::optional<mx::Dtype> output_dtype(const Model& model) {
  const auto type = default_dtype(model);
  return type ? std::optional(type->dtype) : std::nullopt;
}

std::set<std::string> list_kept_types(const DecoderSpec& spec) {
  std::set<std::string> names;
  for (const ParameterSpec& parameter : list_parameters(spec)) {
    if (parameter.keeps_type) {
      names.insert(parameter.name);
    }
  }
  return names;
}

std::string describe_cast(const Model& model, const OutputType& type) {
  const auto kept = list_kept_types(model.spec);
  std::map<std::string, std::pair<int64_t, std::string>> cast;  // by type
  for (const auto& [name, info] : model.tensors.all()) {
    if (mx::issubdtype(info.dtype, mx::floating) && info.dtype != type.dtype &&
        !kept.contains(name) && !is_unused(name, model.spec) &&
        !is_among(name, model.spec.carried)) {
      auto& [count, first] = cast[float_name(info.dtype)];
      first = count++ == 0 ? name : first;
    }
  }
  std::string text;
  for (const auto& [stored, tensors] : cast) {
    const auto& [count, first] = tensors;
    text += text.empty() ? "" : " and ";
    text += stored == float_name(model.dtype) ? stored + " weights"
                                              : std::to_string(count) + " " +
            stored + " tensors (" + first + (count > 1 ? ", ...)" : ")");
  }
  return text.empty() ? ""
                      : text + " are cast to " + float_name(type.dtype) +
          ", as " + type.from + " says";
}

bool becomes_float16(const Model& model, const OutputType& type) {
  return type.dtype == mx::float16 && model.dtype != mx::float16;
}

void name_dtype(Json& config, mx::Dtype dtype) {
  const auto name = float_name(dtype);
  rename_in(config, name);
  config["torch_dtype"] = name;
  if (text_config(config)) {
    rename_in(config["text_config"], name);
  }
}

Model open_source(
    const fs::path& folder,
    const std::string& assumed,
    const ProgressFn& progress,
    std::shared_ptr<ShardProvider> provider) {
  auto model = open_model(folder, assumed, std::move(provider));
  if (const auto type = default_dtype(model)) {
    if (auto note = describe_cast(model, *type); !note.empty()) {
      model.spec.notes.push_back(note);
    }
    if (becomes_float16(model, *type)) {
      const auto check = check_float16(
          model,
          "have config.json's " + type->from + " name bfloat16",
          progress);
      model.spec.notes.insert(
          model.spec.notes.end(), check.warnings.begin(), check.warnings.end());
    }
    model.dtype = type->dtype;
  }
  return model;
}

}  // namespace pennyweight
