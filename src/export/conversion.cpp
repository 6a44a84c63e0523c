#include "export/conversion.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "method/plan_modules.h"
#include "ops/evaluated.h"
#include "ops/rounding/packed_rows.h"
#include "ops/rounding/quantize.h"

namespace pennyweight {

namespace {

// MLX expands odd widths by way of 32 words a word; blocks of rows bound that.
constexpr int64_t kExpandedAtOnce = int64_t{1} << 20;
// Of a tensor, what is in memory at a time.
constexpr uint64_t kPieceBytes = uint64_t{8} << 20;

bool is_float(mx::Dtype dtype) {
  return mx::issubdtype(dtype, mx::floating);
}

mx::array dense(const mx::array& array) {
  return evaluated(mx::contiguous(array));
}

// mlx-lm hands group sizes and bits to MLX, which takes no 64.0.
Json with_integers(Json quantization) {
  for (auto& [key, value] : quantization.items()) {
    if (value.is_object()) {
      value = with_integers(value);
    } else if (
        value.is_number_float() && (key == "group_size" || key == "bits")) {
      value = static_cast<int64_t>(value.get<double>());
    }
  }
  return quantization;
}

}  // namespace

ops::QuantizedWeight stack_packed(
    const std::vector<ops::QuantizedWeight>& parts) {
  const auto stacked = [&](auto&& of) {
    std::vector<mx::array> arrays;
    for (const auto& part : parts) {
      arrays.push_back(of(part));
    }
    return dense(mx::stack(arrays));
  };
  ops::QuantizedWeight whole = parts.front();
  whole.codes = stacked([](const auto& part) { return part.codes; });
  whole.scales = stacked([](const auto& part) { return part.scales; });
  if (whole.biases) {
    whole.biases = stacked([](const auto& part) { return *part.biases; });
  }
  return whole;
}

Conversion::Conversion(const Model& model, ConversionSettings settings)
    : model_(model), settings_(std::move(settings)) {
  kept_types_ = list_kept_types(model.spec);
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    counts_[module.path] = module.count;
  }
  for (const auto& [name, info] : model.tensors.all()) {
    if (is_unused(name, model.spec)) {
      dropped_.insert(name);
    } else {
      plan_tensor(name, info);
    }
  }
}

void Conversion::plan_tensor(const std::string& name, const TensorInfo& info) {
  auto module = module_of(name);
  bool part = name == module + ".scales" || name == module + ".biases";
  if (expands(module) && (part || name.ends_with(".weight"))) {
    if (!part) {
      plan_expanded(module, info);
    }
    return;
  }
  auto dtype = cast(name, info.dtype);
  const QuantSpec* spec = spec_of(name);
  if (!spec) {
    tensors_.push_back({name, dtype, info.shape});
    return;
  }
  auto codes = info.shape;
  codes.back() = static_cast<int>(int64_t{codes.back()} * spec->bits / 32);
  auto groups = info.shape;
  groups.back() /= spec->group_size;
  bool affine = spec->mode == "affine";
  dtype = settings_.scales_dtype.value_or(dtype);
  tensors_.push_back({name, mx::uint32, codes});
  tensors_.push_back({module + ".scales", affine ? dtype : mx::uint8, groups});
  if (affine) {
    tensors_.push_back({module + ".biases", dtype, groups});
  }
}

void Conversion::plan_expanded(
    const std::string& module,
    const TensorInfo& info) {
  const QuantSpec& spec = model_.quantized.at(module);
  auto shape = info.shape;
  shape.back() = static_cast<int>(int64_t{shape.back()} * 32 / spec.bits);
  auto scales = model_.tensors.info(module + ".scales").dtype;
  // The fp modes hold no float type; MLX expands them to bfloat16.
  auto dtype = is_float(scales) ? cast(module, scales) : mx::bfloat16;
  tensors_.push_back({module + ".weight", dtype, shape});
}

void Conversion::run(const std::string& name, ModelWriter& writer) const {
  if (dropped_.contains(name)) {
    return;
  }
  auto module = module_of(name);
  if (expands(module) && !name.ends_with(".bias")) {
    if (name.ends_with(".weight")) {
      expand(module, writer);
    }
    return;
  }
  const QuantSpec* spec = spec_of(name);
  if (!spec) {
    if (auto changed =
            settings_.floats ? settings_.floats(name) : std::nullopt) {
      writer.write(name, checked_cast(dense(*changed), name));
      return;
    }
    writer.begin(name);
    each_piece(name, [&](int, const mx::array& rows) { writer.append(rows); });
    return;
  }
  auto packed = settings_.source ? settings_.source(module)
                                 : round_to_nearest(name, *spec);
  writer.write(name, dense(packed.codes));
  writer.write(module + ".scales", dense(packed.scales));
  if (packed.biases) {
    writer.write(module + ".biases", dense(*packed.biases));
  }
}

bool Conversion::expands(const std::string& module) const {
  return settings_.dequantize && model_.quantized.contains(module);
}

const QuantSpec* Conversion::spec_of(const std::string& name) const {
  if (!settings_.plan || !name.ends_with(".weight")) {
    return nullptr;
  }
  auto it = settings_.plan->modules.find(module_of(name));
  bool planned = it != settings_.plan->modules.end() && it->second.spec &&
      !it->second.published;
  return planned ? &*it->second.spec : nullptr;
}

mx::Dtype Conversion::cast(const std::string& name, mx::Dtype stored) const {
  return settings_.dtype && is_float(stored) &&
          !is_among(name, model_.spec.carried) && !kept_types_.contains(name)
      ? *settings_.dtype
      : stored;
}

mx::array Conversion::load_cast(const std::string& name) const {
  return checked_cast(dense(model_.load(name)), name);
}

// The tensor, cast, some rows at a time.
void Conversion::each_piece(
    const std::string& name,
    const std::function<void(int first, const mx::array& rows)>& take) const {
  const auto& info = model_.tensors.info(name);
  const int rows = info.shape.empty() ? 1 : info.shape[0];
  const uint64_t row = std::max<uint64_t>(1, info.bytes / std::max(1, rows));
  const int step = int(std::max<uint64_t>(1, kPieceBytes / row));
  if (step >= rows) {
    return take(0, load_cast(name));
  }
  if (!model_.tensors.is_stored_so(name)) {
    return each_part(name, take);
  }
  for (int first = 0; first < rows; first += step) {
    const int count = std::min(step, rows - first);
    take(
        first, checked_cast(dense(model_.load_rows(name, first, count)), name));
  }
}

// A stack's parts one by one; what is none in one piece.
void Conversion::each_part(
    const std::string& name,
    const std::function<void(int first, const mx::array& rows)>& take) const {
  const auto& info = model_.tensors.info(name);
  if (info.shape.size() < 3 || !is_float(info.dtype)) {
    return take(0, load_cast(name));
  }
  for (int part = 0; part < info.shape[0]; ++part) {
    take(part, checked_cast(evaluated(model_.load_part(name, part)), name));
  }
}

// A stack's parts one by one.
ops::QuantizedWeight Conversion::round_to_nearest(
    const std::string& name,
    const QuantSpec& spec) const {
  const int64_t count = counts_.at(module_of(name));
  if (count == 0) {
    PackedRows packed(model_.tensors.info(name).shape[0]);
    each_piece(name, [&](int first, const mx::array& rows) {
      packed.put(first, pennyweight::quantize(rows, spec));
    });
    return packed.take();
  }
  std::vector<ops::QuantizedWeight> parts;
  for (int64_t i = 0; i < count; ++i) {
    auto part = checked_cast(dense(model_.load_part(name, i)), name);
    parts.push_back(pennyweight::quantize(part, spec));
    mx::eval(parts.back().codes, parts.back().scales);
    if (parts.back().biases) {
      mx::eval(*parts.back().biases);
    }
  }
  return stack_packed(parts);
}

mx::array Conversion::checked_cast(
    const mx::array& stored,
    const std::string& name) const {
  auto to = cast(name, model_.tensors.info(name).dtype);
  require_finite(stored, name);
  if (stored.dtype() == to) {
    return stored;
  }
  auto tensor = dense(mx::astype(stored, to));
  try {
    require_finite(tensor, name);
  } catch (const Error&) {
    throw numeric_error(
        "convert",
        "tensor " + one_line(name, 120) + " holds values too large for " +
            float_name(to) + "; choose --dtype bfloat16");
  }
  return tensor;
}

// As mlx_lm.convert: the scales are cast first, then MLX expands.
void Conversion::expand(const std::string& module, ModelWriter& writer) const {
  const QuantSpec& spec = model_.quantized.at(module);
  const auto name = module + ".weight";
  const auto& shape = model_.tensors.info(name).shape;
  const auto scales = load_cast(module + ".scales");
  std::optional<mx::array> biases;
  if (spec.mode == "affine") {
    biases = load_cast(module + ".biases");
  }
  const int64_t words = model_.tensors.info(name).bytes / (4 * shape[0]);
  const int64_t row = words * 32 / spec.bits;
  const bool stored_so = model_.tensors.is_stored_so(name);
  const auto codes =
      stored_so ? std::nullopt : std::optional(model_.load(name));
  const int step =
      static_cast<int>(std::max<int64_t>(1, kExpandedAtOnce / row));
  writer.begin(name);
  for (int begin = 0; begin < shape[0]; begin += step) {
    const int end = std::min(begin + step, shape[0]);
    const auto part = dense(mx::dequantize(
        codes ? ops::slice_rows(*codes, begin, end - begin)
              : model_.load_rows(name, begin, end - begin),
        ops::slice_rows(scales, begin, end - begin),
        biases ? std::optional(ops::slice_rows(*biases, begin, end - begin))
               : std::nullopt,
        spec.group_size,
        spec.bits,
        spec.mode));
    require_finite(part, module);
    writer.append(part);
  }
}

Json Conversion::quantization() const {
  if (settings_.plan) {
    return to_json(*settings_.plan);
  }
  const Json& config = model_.checkpoint.config();
  if (settings_.dequantize || model_.quantized.empty()) {
    return nullptr;
  }
  if (model_.published_packed) {
    QuantPlan plan{model_.quantized.begin()->second, {}};
    keep_published(model_, plan);
    return to_json(plan);
  }
  return with_integers(
      config.contains("quantization") ? config["quantization"]
                                      : config["quantization_config"]);
}

Json Conversion::config() const {
  auto config = output_config(model_.checkpoint.config(), quantization());
  if (model_.spec.names) {
    // As mlx-lm, since nothing of a vision tower goes to the output.
    config.erase("vision_config");
  }
  for (const auto& [key, value] : model_.spec.config_patch.items()) {
    config[key] = value;
  }
  if (settings_.dtype) {
    name_dtype(config, *settings_.dtype);
  }
  return config;
}

}  // namespace pennyweight
