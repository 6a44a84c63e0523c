#include "export/model_writer.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "checkpoint/quantization_entries.h"
#include "core/error.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

namespace {

std::string shard_name(size_t shard, size_t count) {
  if (count == 1) {
    return "model.safetensors";
  }
  return formatted("model-%05zu-of-%05zu.safetensors", shard + 1, count);
}

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
  throw argument_error("export", "tensor " + one_line(name, 120) + " " + why);
}

void require_ready(const std::string& name, const mx::array& value) {
  if (!value.is_available() || !value.flags().row_contiguous) {
    refuse(name, "must be evaluated and contiguous");
  }
}

}  // namespace

ModelWriter::ModelWriter(
    fs::path folder,
    std::vector<TensorPlan> plan,
    uint64_t max_shard_bytes)
    : folder_(std::move(folder)), plan_(std::move(plan)) {
  uint64_t in_shard = 0;
  for (size_t i = 0; i < plan_.size(); ++i) {
    uint64_t bytes = plan_bytes(plan_[i]);
    if (i > 0 && in_shard + bytes > max_shard_bytes) {
      shard_ends_.push_back(i);
      in_shard = 0;
    }
    shard_of_.push_back(shard_ends_.size());
    offsets_.push_back(in_shard);
    places_.emplace(plan_[i].name, i);
    in_shard += bytes;
    total_bytes_ += bytes;
  }
  shard_ends_.push_back(plan_.size());
  headers_.resize(shard_ends_.size());
  written_.resize(plan_.size());
}

ModelWriter::~ModelWriter() = default;

ModelWriter::Shard& ModelWriter::open_shard(size_t shard) {
  Shard& own = open_[shard];
  if (!own.file) {
    const size_t first = first_of(shard);
    const size_t end = shard_ends_[shard];
    own.file = std::make_unique<AtomicFile>(
        folder_ / shard_name(shard, shard_ends_.size()));
    const auto header = safetensors_header(plan_, first, end);
    own.file->write(header);
    headers_[shard] = header.size();
    own.missing = end - first;
  }
  return own;
}

void ModelWriter::write(const std::string& name, const mx::array& value) {
  const auto it = places_.find(name);
  if (it == places_.end() || plan_[it->second].shape != value.shape() ||
      plan_[it->second].dtype != value.dtype()) {
    refuse(name, "is not what was planned");
  }
  require_ready(name, value);
  begin(name);
  append(value);
}

void ModelWriter::begin(const std::string& name) {
  const auto it = places_.find(name);
  if (missing_ || it == places_.end() || written_[it->second]) {
    refuse(name, "is not what was planned");
  }
  current_ = it->second;
  open_shard(shard_of_[current_]);
  missing_ = plan_bytes(plan_[current_]);
}

void ModelWriter::append(const mx::array& rows) {
  const auto& planned = plan_.at(current_);
  if (!missing_ || rows.dtype() != planned.dtype || rows.nbytes() > *missing_) {
    refuse(planned.name, "is not what was planned");
  }
  require_ready(planned.name, rows);
  const size_t shard = shard_of_[current_];
  Shard& own = open_shard(shard);
  const uint64_t at =
      headers_[shard] + offsets_[current_] + plan_bytes(planned) - *missing_;
  // Only where tensors come out of order is there a gap to be left, which takes
  // its time on disks that have no holes.
  if (at > own.file->size()) {
    own.file->extend(at);
  }
  if (at == own.file->size()) {
    own.file->write(rows.data<char>(), rows.nbytes());
  } else {
    own.file->write_at(at, rows.data<char>(), rows.nbytes());
  }
  *missing_ -= rows.nbytes();
  if (*missing_ > 0) {
    return;
  }
  missing_.reset();
  written_[current_] = true;
  if (--own.missing == 0) {
    own.file->commit();
    open_.erase(shard);
  }
}

void ModelWriter::finish(int64_t parameters) {
  for (size_t i = 0; i < plan_.size(); ++i) {
    if (!written_[i]) {
      throw argument_error(
          "export", "tensor " + plan_[i].name + " was never written");
    }
  }
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < plan_.size(); ++i) {
    weight_map[plan_[i].name] = shard_name(shard_of_[i], shard_ends_.size());
  }
  Json index;
  index["metadata"]["total_size"] = total_bytes_;
  index["metadata"]["total_parameters"] = parameters;
  index["weight_map"] = weight_map;
  write_file(folder_ / "model.safetensors.index.json", index.dump(4));
}

Json output_config(const Json& config, const Json& quantization) {
  Json result = without_quantization(config);
  // What transformers leaves of the machine that saved the model.
  result.erase("_name_or_path");
  if (!quantization.is_null()) {
    result["quantization"] = quantization;
    result["quantization_config"] = quantization;
  }
  return result;
}

}  // namespace pennyweight
