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
    in_shard += bytes;
    total_bytes_ += bytes;
  }
  shard_ends_.push_back(plan_.size());
}

ModelWriter::~ModelWriter() = default;

void ModelWriter::open_shard() {
  size_t begin = shard_ == 0 ? 0 : shard_ends_[shard_ - 1];
  file_ = std::make_unique<AtomicFile>(
      folder_ / shard_name(shard_, shard_ends_.size()));
  file_->write(safetensors_header(plan_, begin, shard_ends_[shard_]));
}

void ModelWriter::write(const std::string& name, const mx::array& value) {
  if (next_ >= plan_.size() || plan_[next_].shape != value.shape() ||
      plan_[next_].dtype != value.dtype()) {
    refuse(name, "is not what was planned next");
  }
  require_ready(name, value);
  begin(name);
  append(value);
}

void ModelWriter::begin(const std::string& name) {
  if (missing_ || next_ >= plan_.size() || plan_[next_].name != name) {
    refuse(name, "is not what was planned next");
  }
  if (!file_) {
    open_shard();
  }
  missing_ = plan_bytes(plan_[next_]);
}

void ModelWriter::append(const mx::array& rows) {
  const auto& planned = plan_.at(next_);
  if (!missing_ || rows.dtype() != planned.dtype || rows.nbytes() > *missing_) {
    refuse(planned.name, "is not what was planned next");
  }
  require_ready(planned.name, rows);
  file_->write(rows.data<char>(), rows.nbytes());
  *missing_ -= rows.nbytes();
  if (*missing_ > 0) {
    return;
  }
  missing_.reset();
  ++next_;
  if (next_ == shard_ends_[shard_]) {
    file_->commit();
    file_.reset();
    ++shard_;
  }
}

void ModelWriter::finish(int64_t parameters) {
  if (next_ != plan_.size()) {
    throw argument_error(
        "export", "tensor " + plan_[next_].name + " was never written");
  }
  std::map<std::string, std::string> weight_map;
  size_t shard = 0;
  for (size_t i = 0; i < plan_.size(); ++i) {
    shard += i == shard_ends_[shard];
    weight_map[plan_[i].name] = shard_name(shard, shard_ends_.size());
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
