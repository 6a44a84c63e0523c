#pragma once

#include <mlx/io.h>
#include <mlx/ops.h>
#include <mlx/random.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "model/families/family.h"
#include "model/model.h"

namespace pennyweight::testing {

/// A folder that is removed when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "pw_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    fs::remove_all(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const {
    return path_;
  }

 private:
  fs::path path_;
};

inline Json tiny_config(const std::string& family = "llama") {
  Json config = {
      {"model_type", family},
      {"hidden_size", 32},
      {"intermediate_size", 48},
      {"num_hidden_layers", 2},
      {"num_attention_heads", 4},
      {"num_key_value_heads", 2},
      {"head_dim", 8},
      {"vocab_size", 61},
      {"rms_norm_eps", 1e-5},
      {"max_position_embeddings", 64},
      {"rope_theta", 10000.0},
      {"tie_word_embeddings", true}};
  return config;
}

using Tensors = std::unordered_map<std::string, mx::array>;

inline void write_checkpoint(
    const fs::path& folder,
    const Json& config,
    const Tensors& tensors) {
  std::ofstream(folder / "config.json") << config.dump();
  mx::save_safetensors((folder / "model.safetensors").string(), tensors);
}

/// The spec of a config without a checkpoint, as if it had the tensors that
/// `has` names.
inline DecoderSpec spec_of(
    const Json& config,
    const std::function<bool(const std::string&)>& has = {}) {
  for (const Family& family : families()) {
    if (config.at("model_type") == family.model_type) {
      auto none = [](const std::string&) { return false; };
      auto under = [](const std::string&) {
        return std::vector<std::string>();
      };
      auto shape = [](const std::string&) { return mx::Shape(); };
      return read_as(
          family.model_class,
          family.read,
          {JsonView(config, "config.json"), has ? has : none, under, shape});
    }
  }
  throw Error(ErrorCode::not_supported, "test", "unknown family");
}

/// Random weights for every tensor of the spec that `config` describes.
inline Tensors random_tensors(const Json& config, uint64_t seed = 1) {
  auto spec = spec_of(config);
  auto key = mx::random::key(seed);
  Tensors tensors;
  auto put = [&](const std::string& name,
                 const mx::Shape& shape,
                 float scale,
                 float shift) {
    auto keys = mx::random::split(key);
    key = keys.first;
    auto noise = mx::random::normal(shape, mx::float32, keys.second);
    auto value =
        mx::add(mx::multiply(noise, mx::array(scale)), mx::array(shift));
    value.eval();
    tensors.insert_or_assign(name, value);
  };
  for (const auto& module : list_stored_modules(spec)) {
    auto out = static_cast<int>(module.out);
    auto in = static_cast<int>(module.in);
    float scale = module.kind == ModuleSpec::Kind::embedding
        ? 1
        : 1.5f / std::sqrt(static_cast<float>(in));
    auto count = static_cast<int>(module.count);
    put(module.path + ".weight",
        count > 0 ? mx::Shape{count, out, in} : mx::Shape{out, in},
        scale,
        0);
    if (module.bias) {
      put(module.path + ".bias",
          count > 0 ? mx::Shape{count, out} : mx::Shape{out},
          0.3f,
          0);
    }
  }
  auto put_norm = [&](const NormSpec& norm) {
    put(norm.path + ".weight", {static_cast<int>(norm.size)}, 0.3f, 1);
  };
  for (const auto& block : spec.blocks) {
    for (const auto& norm : list_norms(block)) {
      put_norm(norm);
    }
    for (const auto& parameter : list_parameters(block)) {
      put(parameter.name,
          mx::Shape(parameter.shape.begin(), parameter.shape.end()),
          0.3f,
          0);
    }
  }
  for (const auto& norm : list_outer_norms(spec)) {
    put_norm(norm);
  }
  return tensors;
}

/// A model of random weights that is written to disk and opened.
struct TinyModel {
  TemporaryFolder folder;
  Model model;

  explicit TinyModel(const Json& config, uint64_t seed = 1)
      : TinyModel(config, random_tensors(config, seed)) {}
  TinyModel(const Json& config, const Tensors& tensors)
      : model(open(folder, config, tensors)) {}

 private:
  static Model open(
      const TemporaryFolder& folder,
      const Json& config,
      const Tensors& tensors) {
    write_checkpoint(folder.path(), config, tensors);
    return open_model(folder.path());
  }
};

}  // namespace pennyweight::testing
