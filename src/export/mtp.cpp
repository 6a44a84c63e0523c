#include "export/mtp.h"

#include <algorithm>
#include <map>
#include <set>

#include "checkpoint/packed/packed_source.h"
#include "checkpoint/quantization_entries.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json_text.h"
#include "core/text.h"
#include "export/side_files.h"

namespace pennyweight {

namespace fs = std::filesystem;

namespace {

// Where a file of heads says how its codes are packed, as a config.json would.
constexpr const char* kPacking = "quantization_config";

using Metadata = std::map<std::string, std::string>;
// Shows the bytes of a tensor, by its place in the plan.
using ReadTensor = std::function<void(
    size_t at,
    const std::function<void(const char* data, size_t bytes)>& use)>;

// The source's entry by which tensors of its heads are packed; null where they
// are not, or where it has none that fits.
Json packing_of(const Model& model, const std::vector<TensorPlan>& heads) {
  const auto& entries = model.checkpoint.quantization_entries();
  if (std::ranges::any_of(heads, [](const auto& head) {
        return is_packed_part(head.name, head.byte_type);
      })) {
    const auto* packed = model.checkpoint.packed();
    return entries.foreign.is_null() && packed ? packed->settings()
                                               : entries.foreign;
  }
  std::set<std::string> names;
  for (const auto& head : heads) {
    names.insert(head.name);
  }
  const bool by_mlx = std::ranges::any_of(heads, [&](const auto& head) {
    return head.dtype == mx::uint32 && head.name.ends_with(".weight") &&
        names.contains(module_of(head.name) + ".scales");
  });
  return by_mlx ? entries.mlx : Json();
}

Metadata metadata_of(const Json& packing) {
  Metadata metadata{{"format", "mlx"}};
  if (!packing.is_null()) {
    metadata[kPacking] = to_text(tag_floats(packing));
  }
  return metadata;
}

// Who packed heads, as their file says; empty where it says nothing.
std::string packer_in(const Metadata& metadata) {
  const auto it = metadata.find(kPacking);
  if (it == metadata.end()) {
    return "";
  }
  try {
    return packed_by(parse_json(it->second, kMtpFile));
  } catch (const Error&) {
    return packed_by(Json());  // of no known form, and carried all the same
  }
}

CarriedHeads write_heads(
    const fs::path& to,
    const std::vector<TensorPlan>& plan,
    const Metadata& metadata,
    const ReadTensor& read) {
  CarriedHeads heads{
      .tensors = static_cast<int64_t>(plan.size()),
      .packed_by = packer_in(metadata)};
  AtomicFile file(to);
  file.write(safetensors_header(plan, 0, plan.size(), metadata));
  for (size_t i = 0; i < plan.size(); ++i) {
    heads.bytes += static_cast<int64_t>(plan_bytes(plan[i]));
    read(i, [&](const char* data, size_t bytes) { file.write(data, bytes); });
  }
  file.commit();
  return heads;
}

// A file of heads that has lain beside the model. It keeps what it says of its
// packing; where it says nothing, the model's config does, and the output's
// will not.
CarriedHeads
copy_heads(const Model& model, const fs::path& from, const fs::path& to) {
  const auto file = SafetensorsFile::open(from);
  std::vector<TensorPlan> plan;
  CarriedHeads heads;
  for (const auto& entry : file->entries()) {
    plan.push_back({entry.name, entry.dtype, entry.shape, entry.byte_type});
    ++heads.tensors;
    heads.bytes += static_cast<int64_t>(entry.end - entry.begin);
  }
  auto metadata = file->metadata();
  const auto packing =
      metadata.contains(kPacking) ? Json() : packing_of(model, plan);
  if (packing.is_null()) {
    copy_whole_file(from, to);
    heads.packed_by = packer_in(metadata);
    return heads;
  }
  metadata.merge(metadata_of(packing));
  return write_heads(to, plan, metadata, [&](size_t at, const auto& use) {
    const auto& entry = file->entries()[at];
    file->read(entry.begin, entry.end, use);
  });
}

}  // namespace

std::vector<std::string> list_mtp(const Model& model) {
  std::vector<std::string> names;
  for (const auto& [name, info] : model.checkpoint.stored_tensors()) {
    if (is_among(name, model.spec.mtp)) {
      names.push_back(name);
    }
  }
  return names;
}

bool has_mtp_file(const fs::path& folder) {
  std::error_code failed;
  if (!fs::is_regular_file(folder / kMtpFile, failed) ||
      leads_out(folder, kMtpFile)) {
    return false;
  }
  SafetensorsFile::open(folder / kMtpFile);
  return true;
}

CarriedHeads carry_mtp(const Model& model, const fs::path& folder) {
  const auto names = list_mtp(model);
  if (names.empty()) {
    const auto& source = model.checkpoint.folder();
    return has_mtp_file(source)
        ? copy_heads(model, source / kMtpFile, folder / kMtpFile)
        : CarriedHeads{};
  }
  std::vector<TensorPlan> plan;
  for (const auto& name : names) {
    const auto& info = model.checkpoint.stored_info(name);
    plan.push_back({name, info.dtype, info.shape, info.byte_type});
  }
  return write_heads(
      folder / kMtpFile,
      plan,
      metadata_of(packing_of(model, plan)),
      [&](size_t at, const auto& use) {
        const auto bytes = model.checkpoint.stored_info(names[at]).bytes;
        model.checkpoint.read(names[at], 0, bytes, use);
      });
}

std::string describe_mtp(const CarriedHeads& heads) {
  if (heads.tensors == 0) {
    return "";
  }
  auto text = std::string("`") + kMtpFile +
      "` holds the heads that predict further "
      "tokens (" +
      std::to_string(heads.tensors) + " tensors, " +
      human_bytes(double(heads.bytes)) +
      ") as the source has them, for programs that speculate with them; mlx-lm "
      "does not read it.";
  if (!heads.packed_by.empty()) {
    auto who = one_line(heads.packed_by, 40);
    std::erase(who, '`');
    text += " Matrices in it are packed (`" + who + "`): `" + kPacking +
        "` in the file's own metadata, and not `config.json`, says how.";
  }
  return text;
}

}  // namespace pennyweight
