#include "pipeline/work_part.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "checkpoint/safetensors.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "export/model_writer.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "resume";
constexpr const char* kReport = "report.json";
constexpr const char* kTensors = "model.safetensors";

std::string checksum(const std::map<std::string, mx::array>& tensors) {
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

[[noreturn]] void throw_damaged(const fs::path& path) {
  throw Error(
      ErrorCode::corrupt,
      kWhere,
      path.string() + " is damaged; drop it with --force");
}

}  // namespace

Json read_work_json(const fs::path& path) {
  Json json;
  try {
    json = read_json(path);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::io) {
      throw;
    }
  }
  if (!json.is_object()) {
    throw_damaged(path);
  }
  return json;
}

void save_work_part(
    const fs::path& path,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures,
    const std::string& so_far) {
  std::map<std::string, mx::array> dense;
  for (const auto& [name, tensor] : tensors) {
    auto copy = mx::contiguous(tensor);
    mx::eval(copy);
    dense.emplace(name, std::move(copy));
  }
  try {
    AtomicFolder folder(path, false);
    // A part of which nothing is a tensor has no file.
    if (!dense.empty()) {
      write_safetensors(folder.path() / kTensors, dense);
    }
    Json report{
        {"tensors", dense.size()},
        {"checksum", checksum(dense)},
        {"figures", figures}};
    write_file(folder.path() / kReport, report.dump(2) + "\n");
    folder.commit();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::io) {
      throw;
    }
    throw Error(
        ErrorCode::io,
        kWhere,
        std::string(error.what()) + "; run again to go on after " + so_far);
  }
}

std::map<std::string, mx::array> load_work_part(const fs::path& folder) {
  auto report = read_work_json(folder / kReport);
  auto path = folder / kTensors;
  std::map<std::string, mx::array> tensors;
  if (report.value("tensors", Json()) != 0) {
    try {
      tensors = load_safetensors(path);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::io) {
        throw;
      }
      throw_damaged(path);
    }
  }
  if (report.value("checksum", Json()) != checksum(tensors)) {
    throw_damaged(path);
  }
  return tensors;
}

Json load_work_figures(const fs::path& path) {
  return read_work_json(path / kReport).value("figures", Json());
}

}  // namespace pennyweight
