#include "export/mtp.h"

#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "core/files/atomic_file.h"
#include "core/text.h"
#include "export/side_files.h"

namespace pennyweight {

namespace fs = std::filesystem;

namespace {

CarriedHeads copy_heads(const fs::path& from, const fs::path& to) {
  const auto file = SafetensorsFile::open(from);
  CarriedHeads heads;
  for (const auto& entry : file->entries()) {
    ++heads.tensors;
    heads.bytes += static_cast<int64_t>(entry.end - entry.begin);
  }
  copy_whole_file(from, to);
  return heads;
}

}  // namespace

std::vector<std::string> list_mtp(const Model& model) {
  std::vector<std::string> names;
  for (const auto& [name, info] : model.checkpoint.tensors()) {
    if (is_among(name, model.spec.mtp)) {
      for (const auto& part : model.checkpoint.stored_parts(name)) {
        names.push_back(part);
      }
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
        ? copy_heads(source / kMtpFile, folder / kMtpFile)
        : CarriedHeads{};
  }
  CarriedHeads heads{.tensors = static_cast<int64_t>(names.size())};
  std::vector<TensorPlan> plan;
  for (const auto& name : names) {
    const auto& info = model.checkpoint.stored_info(name);
    plan.push_back({name, info.dtype, info.shape, info.byte_type});
    heads.bytes += static_cast<int64_t>(info.bytes);
  }
  AtomicFile file(folder / kMtpFile);
  file.write(safetensors_header(plan, 0, plan.size()));
  for (const auto& name : names) {
    model.checkpoint.read(
        name,
        0,
        model.checkpoint.stored_info(name).bytes,
        [&](const char* data, size_t bytes) { file.write(data, bytes); });
  }
  file.commit();
  return heads;
}

std::string describe_mtp(const CarriedHeads& heads) {
  if (heads.tensors == 0) {
    return "";
  }
  return std::string("`") + kMtpFile +
      "` holds the heads that predict further "
      "tokens (" +
      std::to_string(heads.tensors) + " tensors, " +
      human_bytes(double(heads.bytes)) +
      ") as the source has them, for programs that speculate with them; mlx-lm "
      "does not read it.";
}

}  // namespace pennyweight
