#include "run/work/work_part.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/json_text.h"
#include "export/model_writer.h"
#include "ops/evaluated.h"

namespace pennyweight {

namespace {

constexpr const char* kReport = "report.json";
constexpr const char* kTensors = "model.safetensors";
constexpr const char* kUnfinished = ".unfinished-";
constexpr const char* kChecksum = "checksum";
constexpr size_t kMaxJson = size_t{1} << 30;

std::string checksum_of(const std::map<std::string, mx::array>& tensors) {
  Hash hash;
  for (const auto& [name, tensor] : tensors) {
    hash.add(name);
    hash.add(safetensors_dtype_name(tensor.dtype()));
    for (auto extent : tensor.shape()) {
      hash.add(std::to_string(extent));
    }
    hash.add(tensor.data<char>(), tensor.nbytes());
  }
  return hash.text();
}

std::string checksum_of(const Json& json, const std::string& salt) {
  Hash hash;
  hash.add(salt);
  hash.add(to_text(json));
  return hash.text();
}

[[noreturn]] void throw_damaged(const fs::path& path) {
  throw corrupt_error("resume", path.string() + " is damaged");
}

Json read_report(const DirHandle& folder, const WorkPart& part) {
  auto report = read_work_json(folder, kReport, part.salt());
  const auto tensors = report.find("tensors");
  if (tensors == report.end() || !tensors->is_object()) {
    throw_damaged(folder.path() / kReport);
  }
  return report;
}

}  // namespace

void write_work_json(
    const DirHandle& folder,
    const std::string& name,
    const Json& json,
    const std::string& salt) {
  auto sealed = json;
  sealed[kChecksum] = checksum_of(json, salt);
  write_file(folder, name, to_text(sealed, 2) + "\n");
}

Json read_work_json(
    const DirHandle& folder,
    const std::string& name,
    const std::string& salt) {
  const auto path = folder.path() / name;
  const auto text = folder.read_file(name, kMaxJson);
  Json json;
  try {
    json = parse_json(text, path.string());
  } catch (const Error&) {
    throw_damaged(path);
  }
  const auto sum = json.is_object() ? json.find(kChecksum) : json.end();
  if (sum == json.end() || !sum->is_string()) {
    throw_damaged(path);
  }
  const auto said = sum->get<std::string>();
  json.erase(kChecksum);
  if (said != checksum_of(json, salt)) {
    throw_damaged(path);
  }
  return json;
}

void save_work_part(
    const WorkPart& part,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures,
    const std::string& so_far) {
  std::map<std::string, mx::array> dense;
  for (const auto& [name, tensor] : tensors) {
    auto copy = evaluated(mx::contiguous(tensor));
    dense.emplace(name, std::move(copy));
  }
  const auto unfinished = kUnfinished + part.name;
  try {
    part.folder.remove(unfinished);
    const auto folder = part.folder.make_folder(unfinished);
    // A part of which nothing is a tensor has no file.
    if (!dense.empty()) {
      write_safetensors(folder, kTensors, dense);
    }
    const Json report{
        {"tensors",
         {{"count", dense.size()}, {"checksum", checksum_of(dense)}}},
        {"figures", figures}};
    write_work_json(folder, kReport, report, part.salt());
    part.folder.rename(unfinished, part.name);
    part.folder.sync();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::io) {
      throw;
    }
    throw Error(
        ErrorCode::io,
        "resume",
        std::string(error.what()) + "; run again to go on after " + so_far);
  }
}

std::map<std::string, mx::array> load_work_part(const WorkPart& part) {
  const auto folder = part.folder.open_folder(part.name);
  const auto report = read_report(folder, part);
  const auto& said = report.at("tensors");
  std::map<std::string, mx::array> tensors;
  if (said.value("count", 0) > 0) {
    tensors = load_safetensors(folder, kTensors);
  }
  if (said.value("checksum", "") != checksum_of(tensors)) {
    throw_damaged(folder.path() / kTensors);
  }
  return tensors;
}

Json load_work_figures(const WorkPart& part) {
  const auto folder = part.folder.open_folder(part.name);
  return read_report(folder, part).value("figures", Json());
}

std::optional<std::string> fault_of(const WorkPart& part) {
  try {
    load_work_part(part);
    load_work_figures(part);
  } catch (const Error& error) {
    return reason_of(error);
  }
  return std::nullopt;
}

}  // namespace pennyweight
