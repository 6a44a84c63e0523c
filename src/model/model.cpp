#include "model/model.h"

#include <mlx/ops.h>

#include <algorithm>
#include <set>

#include "checkpoint/quantization_entries.h"
#include "core/error.h"
#include "core/json.h"
#include "model/families/family.h"
#include "model/finite.h"
#include "model/names/names_spec.h"
#include "model/packing.h"

namespace pennyweight {

namespace {

bool is_float(mx::Dtype dtype) {
  return dtype == mx::float32 || dtype == mx::bfloat16 || dtype == mx::float16;
}

std::string shape_text(const mx::Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

// Claims tensors one by one and says at the end what nobody asked for.
class Claims {
 public:
  Claims(const Checkpoint& checkpoint, const ModelTensors& tensors)
      : checkpoint_(checkpoint), tensors_(tensors) {}

  bool contains(const std::string& name) const {
    return tensors_.contains(name);
  }

  const TensorInfo& claim(
      const std::string& name,
      const std::vector<int64_t>& shape) {
    if (!tensors_.contains(name)) {
      throw Error(
          checkpoint_.lacks_files() ? ErrorCode::not_found : ErrorCode::corrupt,
          "model",
          checkpoint_.folder().string() + ": tensor " + name + " is missing" +
              checkpoint_.about_missing(name) + about_names(name));
    }
    const auto& info = tensors_.info(name);
    if (!std::ranges::equal(info.shape, shape)) {
      std::string expected = "[";
      for (size_t i = 0; i < shape.size(); ++i) {
        expected += (i ? ", " : "") + std::to_string(shape[i]);
      }
      fail(
          "tensor " + name + " has shape " + shape_text(info.shape) +
          ", the config asks for " + expected + "]");
    }
    if (!claimed_.insert(name).second) {
      fail("tensor " + name + " is claimed by two modules");
    }
    return info;
  }

  const TensorInfo& claim_float(
      const std::string& name,
      const std::vector<int64_t>& shape) {
    const auto& info = claim(name, shape);
    if (!is_float(info.dtype)) {
      fail("tensor " + name + " is not of a floating type");
    }
    count_[info.dtype.val()] += info.bytes;
    return info;
  }

  // What the names that are there say of one that is not.
  std::string about_names(const std::string& name) const {
    for (const auto& [other, info] : tensors_.all()) {
      if (other.find(".lora_A.") != other.npos) {
        return "; this is an adapter (" + one_line(other, 120) +
            "): merge it into its base model first";
      }
      if (other.ends_with("." + name) || name.ends_with("." + other)) {
        return "; there is " + one_line(other, 120) +
            ": save the model under the names that mlx-lm reads";
      }
    }
    return "";
  }

  bool is_claimed(const std::string& name) const {
    return claimed_.contains(name);
  }

  // What nobody asks for, though it is there.
  void leave(const std::string& name) {
    claimed_.insert(name);
  }

  void finish() const {
    for (const auto& [name, info] : tensors_.all()) {
      if (!claimed_.contains(name)) {
        fail(
            "tensor " + one_line(name, 120) +
            " belongs to no module of this model");
      }
    }
  }

  mx::Dtype main_dtype() const {
    auto most = std::ranges::max_element(
        count_, {}, [](const auto& entry) { return entry.second; });
    for (mx::Dtype dtype : {mx::float32, mx::bfloat16, mx::float16}) {
      if (most != count_.end() && dtype.val() == most->first) {
        return dtype;
      }
    }
    return mx::float32;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw corrupt_error("model", checkpoint_.folder().string() + ": " + what);
  }

 private:
  const Checkpoint& checkpoint_;
  const ModelTensors& tensors_;
  std::set<std::string> claimed_;
  std::map<mx::Dtype::Val, uint64_t> count_;
};

// As mlx-lm: what the config says of this module by name, else what the
// shapes say (the config's common entry may not hold for every module).
QuantSpec stored_spec(
    const ModelTensors& tensors,
    const Json& common,
    const ModuleSpec& module) {
  if (auto it = common.find(module.path);
      it != common.end() && it->is_object()) {
    std::string origin = "config.json: quantization of " + module.path;
    return quant_spec_from_json(JsonView(*it, origin));
  }
  const auto& weight = tensors.info(module.path + ".weight");
  const auto& scales = tensors.info(module.path + ".scales");
  int64_t words = weight.shape.empty() ? 0 : weight.shape.back();
  int64_t groups = scales.shape.empty() ? 0 : scales.shape.back();
  int group = groups > 0 ? static_cast<int>(module.in / groups) : 0;
  int bits = static_cast<int>(words * 32 / module.in);
  std::string mode = "affine";
  if (scales.dtype == mx::uint8) {
    mode = group == 16 ? "nvfp4" : bits == 4 ? "mxfp4" : "mxfp8";
  }
  try {
    return make_quant_spec(mode, bits, group);
  } catch (const Error&) {
    throw corrupt_error(
        "model",
        module.path + ".weight and .scales have shapes " +
            shape_text(weight.shape) + " and " + shape_text(scales.shape) +
            ", which fit no MLX quantization of " + std::to_string(module.in) +
            " inputs");
  }
}

// [rows], or of a stack [count, rows].
std::vector<int64_t> shape_of(
    const ModuleSpec& module,
    std::vector<int64_t> shape) {
  if (module.count > 0) {
    shape.insert(shape.begin(), module.count);
  }
  return shape;
}

void claim_packed(
    Claims& claims,
    const ModuleSpec& module,
    const QuantSpec& spec) {
  if (!fits(spec, module.in)) {
    claims.fail(
        "module " + module.path + " is " + std::to_string(module.in) +
        " wide, which groups of " + std::to_string(spec.group_size) +
        " do not divide");
  }
  int64_t words = module.in * spec.bits / 32;
  int64_t groups = module.in / spec.group_size;
  const auto& weight = claims.claim(
      module.path + ".weight", shape_of(module, {module.out, words}));
  if (weight.dtype != mx::uint32) {
    claims.fail("tensor " + weight.name + " must hold packed uint32");
  }
  if (spec.mode == "affine") {
    const auto shape = shape_of(module, {module.out, groups});
    claims.claim_float(module.path + ".scales", shape);
    claims.claim_float(module.path + ".biases", shape);
    return;
  }
  const auto& scales = claims.claim(
      module.path + ".scales", shape_of(module, {module.out, groups}));
  if (scales.dtype != mx::uint8) {
    claims.fail("tensor " + scales.name + " must hold uint8");
  }
}

void claim_module(
    Model& model,
    Claims& claims,
    const Json& common,
    const ModuleSpec& module) {
  if (!common.is_null() && claims.contains(module.path + ".scales") &&
      claims.contains(module.path + ".weight")) {
    auto spec = stored_spec(model.tensors, common, module);
    claim_packed(claims, module, spec);
    model.quantized.emplace(module.path, spec);
  } else {
    claims.claim_float(
        module.path + ".weight", shape_of(module, {module.out, module.in}));
  }
  if (module.bias) {
    claims.claim_float(module.path + ".bias", shape_of(module, {module.out}));
  }
}

void claim_norm(Claims& claims, const NormSpec& norm) {
  std::vector<int64_t> shape{norm.size};
  if (norm.heads > 0) {
    shape.insert(shape.begin(), norm.heads);
  }
  claims.claim_float(norm.path + ".weight", shape);
  if (norm.bias) {
    claims.claim_float(norm.path + ".bias", {norm.size});
  }
}

}  // namespace

namespace {

// Some quantizers write a bias for each linear, of zeros where there was none.
void drop_zero_biases(const Claims& claims, Model& model) {
  if (!model.checkpoint.packed()) {
    return;
  }
  for (const auto& [name, info] : model.tensors.all()) {
    if (!name.ends_with(".bias") || claims.is_claimed(name) ||
        !claims.is_claimed(module_of(name) + ".weight") ||
        info.shape.size() != 1 || !is_float(info.dtype)) {
      continue;
    }
    if (mx::all(mx::equal(model.load(name), mx::array(0, info.dtype)))
            .item<bool>()) {
      model.spec.dropped.push_back(name);
    }
  }
}

// What mlx-lm drops is left out of an output, and said; a dropped head is said
// where that was decided. What is carried over is said with its count.
void leave_dropped(Claims& claims, Model& model) {
  std::vector<std::string> dropped;
  std::vector<std::string> heads;
  for (const auto& [name, info] : model.tensors.all()) {
    const bool mtp = is_among(name, model.spec.mtp);
    const bool drops = is_among(name, model.spec.dropped);
    if (mtp || drops || is_among(name, model.spec.carried)) {
      claims.leave(name);
    }
    if (mtp) {
      heads.push_back(name);
    } else if (drops && name.find("lm_head.") == std::string::npos) {
      dropped.push_back(name);
    }
  }
  if (!dropped.empty()) {
    model.spec.notes.push_back(
        std::to_string(dropped.size()) + " tensors such as " +
        one_line(dropped.front(), 120) +
        " are left out: mlx-lm's class does not use them");
  }
  if (!heads.empty()) {
    model.spec.notes.push_back(
        std::to_string(heads.size()) + " tensors such as " +
        one_line(heads.front(), 120) +
        " predict further tokens (MTP): mlx-lm does not use them; an output "
        "has them as they are in mtp.safetensors, or not with --drop-mtp");
  }
}

Model claim_all(Checkpoint checkpoint, DecoderSpec spec) {
  ModelTensors tensors(checkpoint, spec.sources);
  Model model{
      std::move(checkpoint),
      std::move(spec),
      std::move(tensors),
      {},
      false,
      mx::float32};
  auto& notes = model.spec.notes;
  const auto& found = model.checkpoint.notes();
  notes.insert(notes.begin(), found.begin(), found.end());
  Claims claims(model.checkpoint, model.tensors);
  const auto packing =
      read_packing(model.checkpoint, model.tensors, model.spec);
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    claim_module(model, claims, packing.common, module);
  }
  for (const BlockSpec& block : model.spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      claim_norm(claims, norm);
    }
  }
  for (const ParameterSpec& parameter : list_parameters(model.spec)) {
    claims.claim_float(parameter.name, parameter.shape);
  }
  for (const NormSpec& norm : list_outer_norms(model.spec)) {
    claim_norm(claims, norm);
  }
  drop_zero_biases(claims, model);
  leave_dropped(claims, model);
  claims.finish();
  model.dtype = claims.main_dtype();
  settle_published(packing, model);
  if (!model.published_packed && !packing.published) {
    model.checkpoint.settle_quantization(
        packing.is_lost ? packed_entry(model.quantized) : packing.common);
    model.spec.config_patch =
        without_quantization(std::move(model.spec.config_patch));
  }
  return model;
}

// Families that could have written this checkpoint.
std::vector<std::string> matching_families(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const Family& family : families()) {
    try {
      claim_all(
          Checkpoint::open(checkpoint.folder()),
          read_decoder_spec(checkpoint, family.model_type));
      names.push_back(family.model_type);
    } catch (const Error&) {
      // It is none of these.
    }
  }
  return names;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

[[noreturn]] void refuse_type(
    const Checkpoint& checkpoint,
    const std::string& type) {
  const auto matching = matching_families(checkpoint);
  const auto why = why_not_by_names(checkpoint);
  if (matching.empty() && !why.empty()) {
    throw not_supported_error(
        "model",
        (checkpoint.folder() / "config.json").string() + ": model_type \"" +
            one_line(type, 60) + "\" is not supported, not by its tensors' " +
            "names either: " + why);
  }
  std::vector<std::string> known;
  for (const Family& family : families()) {
    known.push_back(family.model_type);
  }
  throw not_supported_error(
      "model",
      (checkpoint.folder() / "config.json").string() + ": model_type \"" +
          one_line(type, 60) + "\" is not supported; " +
          (matching.empty() ? "known are " + listed(known)
                            : "its tensors and config keys are those of " +
                   listed(matching) + ": --assume-family " + matching.front() +
                   " goes on as if it were one, if you know that it is"));
}

Model open_known(Checkpoint checkpoint, const std::string& assumed) {
  const auto type = model_type_of(checkpoint);
  const bool known = is_known_family(type);
  if (!known && assumed.empty()) {
    if (is_known_by_names(checkpoint)) {
      throw not_supported_error(
          "model",
          (checkpoint.folder() / "config.json").string() + ": " +
              about_names(checkpoint));
    }
    refuse_type(checkpoint, type);
  }
  return or_unread_packs(checkpoint, [&] {
    auto spec = read_decoder_spec(checkpoint, known ? type : assumed);
    if (!known) {
      spec.notes.push_back(
          "model_type " + one_line(type, 60) + " is assumed to be " + assumed +
          ", which an output is named");
      spec.config_patch["model_type"] = assumed;
    } else if (!assumed.empty() && assumed != type) {
      spec.notes.push_back(
          "--assume-family " + assumed + " is not used: model_type " + type +
          " is known");
    }
    auto model = claim_all(std::move(checkpoint), std::move(spec));
    require_finite_vectors(model);
    return model;
  });
}

}  // namespace

Model open_model(
    const fs::path& folder,
    const std::string& assumed,
    std::shared_ptr<ShardProvider> provider) {
  return open_known(Checkpoint::open(folder, std::move(provider)), assumed);
}

Model open_by_names(
    const fs::path& folder,
    const std::string& assumed,
    std::shared_ptr<ShardProvider> provider) {
  auto checkpoint = Checkpoint::open(folder, std::move(provider));
  if (!assumed.empty() || is_known_family(model_type_of(checkpoint)) ||
      !is_known_by_names(checkpoint)) {
    return open_known(std::move(checkpoint), assumed);
  }
  check_loader_keys(checkpoint);
  return or_unread_packs(checkpoint, [&] {
    auto spec = read_names_spec(checkpoint);
    auto model = claim_all(std::move(checkpoint), std::move(spec));
    require_finite_vectors(model);
    return model;
  });
}

}  // namespace pennyweight
