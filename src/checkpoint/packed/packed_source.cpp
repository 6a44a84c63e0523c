#include "checkpoint/packed/packed_source.h"

#include <algorithm>

#include "checkpoint/packed/formats.h"
#include "core/error.h"

namespace pennyweight {

namespace {

// The ends of names of scales for activations and caches, which an output does
// not quantize.
constexpr const char* kActivations[] = {
    "activation_scale",
    ".input_global_scale",
    ".input_scale",
    ".input_scale_ub",
    ".input_zero_point",
    ".k_scale",
    ".k_zero_point",
    ".kv_scale",
    ".output_scale",
    ".output_zero_point",
    ".prob_output_scale",
    ".q_scale",
    ".v_scale",
    ".v_zero_point",
};

// The ends of names of tensors that belong to packed matrices alone.
constexpr const char* kParts[] = {
    ".g_idx",
    ".global_scale",
    ".pre_quant_scale",
    ".qweight",
    ".qzeros",
    ".weight_g_idx",
    ".weight_global_scale",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_2",
    ".weight_shape",
    ".weight_zero_point",
    "_scale_inv",
};

bool ends_with_one(const std::string& name, auto& suffixes) {
  return std::ranges::any_of(
      suffixes, [&](const char* suffix) { return name.ends_with(suffix); });
}

// The entry of another quantizer. FP8 codes beside scales need none: mlx-lm's
// classes read them without, too.
const Json& assumed_entry(
    const QuantizationEntries& entries,
    const StoredTensors& stored) {
  static const Json none;
  static const Json fp8{{"quant_method", "fp8"}};
  if (!entries.foreign.is_null()) {
    return entries.foreign;
  }
  const bool scaled = entries.mlx.is_null() &&
      std::ranges::any_of(stored.infos, [&](const auto& entry) {
                        return entry.second.byte_type == ByteType::e4m3 &&
                            stored.infos.contains(entry.first + "_scale_inv");
                      });
  return scaled ? fp8 : none;
}

bool has_global_scales(
    const QuantizationEntries& entries,
    const StoredTensors& stored) {
  return !entries.mlx.is_null() &&
      std::ranges::any_of(stored.infos, [](const auto& entry) {
        return entry.first.ends_with(".global_scale");
      });
}

// Refuses FP8 without scales, and parts of matrices that were not read.
void refuse_left_over(
    const PackedParts& parts,
    const StoredTensors& stored,
    const PackedFormat& format) {
  for (const auto& [name, info] : stored.infos) {
    if (parts.taken().contains(name)) {
      continue;
    }
    if (info.byte_type == ByteType::e4m3 && name.ends_with(".weight")) {
      const auto base = name.substr(0, name.rfind(".weight"));
      parts.require(base + format.scales, info);
    }
    if (is_packed_part(name, info.byte_type)) {
      parts.wrong(info, "belongs to no matrix that is packed as it says");
    }
  }
}

}  // namespace

bool is_packed_part(const std::string& name, ByteType byte_type) {
  return byte_type != ByteType::plain || ends_with_one(name, kParts);
}

std::unique_ptr<PackedSource> PackedSource::find(
    const QuantizationEntries& entries,
    const StoredTensors& stored) {
  const bool by_mlx = has_global_scales(entries, stored);
  const Json& found = by_mlx ? entries.mlx : assumed_entry(entries, stored);
  const auto* format = by_mlx ? global_scale_format() : packed_format(found);
  if (!format) {
    return nullptr;
  }
  std::unique_ptr<PackedSource> source(new PackedSource);
  const bool foreign = !by_mlx && !entries.foreign.is_null();
  source->entry_ = {
      by_mlx        ? "mlx-lm with a global_scale"
          : foreign ? entries.method
                    : "fp8",
      stored.folder + "/" + (foreign ? entries.foreign_place : "config.json"),
      packed_settings(found)};
  const bool has_parts =
      std::ranges::any_of(stored.infos, [](const auto& entry) {
        return is_packed_part(entry.first, entry.second.byte_type);
      });
  if (!has_parts) {
    return nullptr;
  }
  PackedParts parts(stored, source->entry_);
  format->add(parts);
  for (const auto& [name, info] : stored.infos) {
    if (ends_with_one(name, kActivations) && !parts.taken().contains(name)) {
      parts.drop(name);
    }
  }
  refuse_left_over(parts, stored, *format);
  source->tensors_ = parts.take_tensors();
  source->taken_ = parts.taken();
  source->dropped_ = parts.dropped();
  source->notes_ = parts.notes();
  for (const auto& [name, tensor] : source->tensors_) {
    for (const auto& part : tensor->parts()) {
      source->stored_bytes_ += stored.infos.at(part).bytes;
    }
  }
  return source;
}

const PackedTensor* PackedSource::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second.get();
}

Json PackedSource::json() const {
  Json forms = Json::object();
  uint64_t expanded = 0;
  for (const auto& [name, tensor] : tensors_) {
    const auto& form = tensor->form();
    forms[form] = forms.value(form, int64_t{0}) + 1;
    expanded += tensor->info().bytes;
  }
  Json figures{
      {"packed_by", entry_.method},
      {"matrices", tensors_.size()},
      {"forms", forms},
      {"stored_bytes", stored_bytes_},
      {"expanded_bytes", expanded},
      {"dropped", dropped_}};
  if (!notes_.empty()) {
    figures["notes"] = notes_;
  }
  return figures;
}

std::string PackedSource::describe() const {
  const auto figures = json();
  std::string forms;
  for (const auto& [form, count] : figures["forms"].items()) {
    forms += (forms.empty() ? "" : ", ") + count.dump() + " " + form;
  }
  auto text = "the model comes packed by \"" + one_line(entry_.method, 40) +
      "\" (matrices: " + forms +
      "): it is expanded as it is read, and stands for the full model, so that "
      "no figure counts what packing it has lost";
  if (dropped_ > 0) {
    text += "; " + std::to_string(dropped_) +
        " scales of activations and caches are left out";
  }
  for (const auto& note : notes_) {
    text += "; " + note;
  }
  return text;
}

}  // namespace pennyweight
