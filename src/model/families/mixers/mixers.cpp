#include "model/families/mixers/mixers.h"

#include "core/json.h"

namespace pennyweight {

std::vector<std::string>
read_layer_names(const JsonView& config, const char* key, int layers) {
  std::vector<std::string> names;
  const Json* types = find_layer_list(config, key, layers);
  for (const Json& type : types ? *types : Json::array()) {
    if (!type.is_string()) {
      throw wrong_config(
          config, "\"" + std::string(key) + "\" must be a list of names");
    }
    names.push_back(type.get<std::string>());
  }
  return names;
}

void add_convolution_source(
    const FamilyInput& input,
    const std::string& name,
    DecoderSpec& spec) {
  const auto shape = input.shape_of(name);
  if (shape.size() == 3 && shape.back() != 1) {
    TensorSource source{.name = name};
    source.width_first = true;
    spec.sources.insert_or_assign(name, std::move(source));
  }
}

void read_hybrid_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec) {
  read_plain_rope(config, rope, spec);
  const auto parameters = config.object("rope_parameters");
  if (!parameters) {
    return;
  }
  if (parameters->has("rope_theta") &&
      parameters->number("rope_theta") != rope.base) {
    throw wrong_config(
        config, "\"rope_theta\" and that of \"rope_parameters\" differ");
  }
  if (is_scaled(*parameters)) {
    spec.notes.push_back(
        "the scaling in rope_parameters is not used, as in mlx-lm, whose class "
        "for this family makes nothing of it");
  }
}

ScanShape
read_scan_shape(const JsonView& config, int64_t hidden, const ScanKeys& keys) {
  const auto size = [&](const char* key) {
    return static_cast<int>(config.integer(key, 1, 1 << 16));
  };
  ScanShape shape;
  shape.hidden = hidden;
  shape.heads = size(keys.heads);
  shape.head_dim = size(keys.head_dim);
  shape.groups = size(keys.groups);
  shape.state = size(keys.state);
  shape.width = size(keys.width);
  shape.bias = config.boolean_or(keys.bias, false);
  shape.conv_bias = config.boolean_or(keys.conv_bias, false);
  return shape;
}

void read_time_limit(
    const JsonView& config,
    float least,
    float most,
    ScanShape& shape) {
  shape.dt_least = least;
  shape.dt_most = most;
  if (!config.has("time_step_limit")) {
    return;
  }
  const auto limits = config.numbers("time_step_limit");
  if (limits.size() != 2 || !(limits[0] >= 0) || !(limits[1] > limits[0])) {
    throw wrong_config(
        config,
        "\"time_step_limit\" must be two numbers, the least and the most");
  }
  shape.dt_least = static_cast<float>(limits[0]);
  shape.dt_most = static_cast<float>(limits[1]);
}

ScanSpec make_scan(
    const FamilyInput& input,
    const std::string& path,
    const ScanShape& shape,
    DecoderSpec& spec) {
  if (shape.heads % shape.groups != 0) {
    throw wrong_config(
        input.config, "the scan's groups do not divide its heads");
  }
  const int64_t inner = int64_t{shape.heads} * shape.head_dim;
  const int64_t mixed = inner + 2 * int64_t{shape.groups} * shape.state;
  if (inner + mixed > 16 * kMaxWidth) {
    throw wrong_config(input.config, "the scan's sizes are out of range");
  }
  ScanSpec scan;
  scan.in = {
      path + "in_proj", inner + mixed + shape.heads, shape.hidden, shape.bias};
  scan.conv = {path + "conv1d.weight", {mixed, shape.width, 1}};
  if (shape.conv_bias) {
    scan.conv_bias = ParameterSpec{path + "conv1d.bias", {mixed}};
  }
  scan.a_log = {path + "A_log", {shape.heads}};
  scan.dt_bias = {path + "dt_bias", {shape.heads}};
  scan.skip = {path + "D", {shape.heads}};
  scan.heads = shape.heads;
  scan.head_dim = shape.head_dim;
  scan.groups = shape.groups;
  scan.state = shape.state;
  scan.dt_least = shape.dt_least;
  scan.dt_most = shape.dt_most;
  add_convolution_source(input, scan.conv.name, spec);
  return scan;
}

NormSpec scan_norm(const std::string& path, const ScanShape& shape, float eps) {
  return {path + "norm", int64_t{shape.heads} * shape.head_dim, eps};
}

AttentionSpec
scan_layer(const std::string& path, const ScanShape& shape, ScanSpec scan) {
  AttentionSpec attention;
  attention.scan = std::move(scan);
  attention.o = {
      path + "out_proj",
      shape.hidden,
      int64_t{shape.heads} * shape.head_dim,
      shape.bias};
  return attention;
}

}  // namespace pennyweight
