#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "core/progress.h"
#include "model/model.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// The type that an output's floats are cast to, and what says so: a key of
/// config.json ("torch_dtype", "text_config.dtype", "dtype") or "--dtype".
struct OutputType {
  mx::Dtype dtype;
  std::string from;
};

/// As mlx_lm.convert, torch_dtype decides where it is not null, else
/// text_config.dtype; else dtype, which transformers 5 writes in place of
/// torch_dtype and mlx_lm.convert does not read. What is none of float32,
/// bfloat16 and float16 ("auto") leaves all tensors as they are stored.
std::optional<OutputType> default_dtype(const Model& model);

/// Its type alone: what a Conversion casts floats to.
std::optional<mx::Dtype> output_dtype(const Model& model);

/// One line on the tensors that are cast to `type` ("float32 weights are cast
/// to bfloat16, as torch_dtype says"); empty where none are.
std::string describe_cast(const Model& model, const OutputType& type);

/// Names the type in an output's config.json in all places that mlx-lm and
/// transformers read: where a type stood, text_config included, and in
/// torch_dtype.
void name_dtype(Json& config, mx::Dtype dtype);

/// Most weights are of another type than float16, which they are cast to.
bool becomes_float16(const Model& model, const OutputType& type);

/// Opens a model that a method makes another of: matrices run in the type of
/// the output, model.dtype. A cast is among the spec's notes, and what does
/// not fit float16 where that is it (check_float16()). Errors as open_model's.
Model open_source(
    const fs::path& folder,
    const std::string& assumed,
    const ProgressFn& progress = {},
    std::shared_ptr<ShardProvider> provider = nullptr);

/// Names of the tensors that keep the type they are stored in, whatever the
/// rest is cast to.
std::set<std::string> list_kept_types(const DecoderSpec& spec);

/// "float32", "bfloat16" or "float16", and back.
std::string float_name(mx::Dtype dtype);
std::optional<mx::Dtype> float_by_name(const std::string& name);
/// The same of what a user gave as --dtype; invalid_argument for another name.
mx::Dtype asked_dtype(const std::string& where, const std::string& name);

}  // namespace pennyweight
