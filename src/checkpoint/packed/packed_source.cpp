#include "checkpoint/packed/packed_source.h"

#include <algorithm>

#include "checkpoint/packed/formats.h"
#include "core/error.h"

namespace pennyweight {

namespace {

// Scales of what flows through the model: an output computes it in floats.
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

// What belongs to a packed matrix and to nothing else.
constexpr const char* kParts[] = {
    ".g_idx",
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

// Where scales in FP8 stand without any entry, mlx-lm's classes read them, too.
const Json& assumed_entry(
    const QuantizationEntries& entries,
    const StoredTensors& stored) {
  static const Json none;
  static const Json fp8{{"quant_method", "fp8"}};
  const bool assumed = entries.foreign.is_null() && entries.mlx.is_null() &&
      std::ranges::any_of(stored.infos, [](const auto& entry) {
                         return entry.first.ends_with(".weight_scale_inv");
                       });
  return assumed ? fp8 : entries.foreign.is_null() ? none : entries.foreign;
}

// FP8 without scales, and what belongs to matrices that are not there.
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
    if (ends_with_one(name, kParts) || info.byte_type != ByteType::plain) {
      parts.wrong(info, "belongs to no matrix that is packed as it says");
    }
  }
}

}  // namespace

std::unique_ptr<PackedSource> PackedSource::find(
    const QuantizationEntries& entries,
    const StoredTensors& stored) {
  const Json& found = assumed_entry(entries, stored);
  const auto* format = packed_format(found);
  if (!format) {
    return nullptr;
  }
  std::unique_ptr<PackedSource> source(new PackedSource);
  source->entry_ = {
      entries.foreign.is_null() ? "fp8" : entries.method,
      stored.folder + "/" +
          (entries.foreign.is_null() ? "config.json" : entries.foreign_place),
      packed_settings(found)};
  const bool has_bytes =
      std::ranges::any_of(stored.infos, [](const auto& entry) {
        return entry.second.byte_type != ByteType::plain;
      });
  const bool has_parts = std::ranges::any_of(
      stored.infos,
      [](const auto& entry) { return ends_with_one(entry.first, kParts); });
  if (!has_bytes && !has_parts) {
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
  return {
      {"packed_by", entry_.method},
      {"matrices", tensors_.size()},
      {"forms", forms},
      {"stored_bytes", stored_bytes_},
      {"expanded_bytes", expanded},
      {"dropped", dropped_}};
}

std::string PackedSource::describe() const {
  const auto figures = json();
  std::string forms;
  for (const auto& [form, count] : figures["forms"].items()) {
    forms += (forms.empty() ? "" : ", ") + count.dump() + " " + form;
  }
  auto text = "the model comes packed by \"" + one_line(entry_.method, 40) +
      "\" (matrices: " + forms +
      "): they are expanded as they are read, and what packing them has lost "
      "is in no figure here";
  if (dropped_ > 0) {
    text += "; " + std::to_string(dropped_) +
        " scales of activations and caches are left out";
  }
  return text;
}

}  // namespace pennyweight
