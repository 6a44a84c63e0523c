#include "model/model.h"

#include <mlx/ops.h>

#include "checkpoint/quantization_entries.h"
#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "model/claims.h"
#include "model/families/family.h"
#include "model/finite.h"
#include "model/names/names_spec.h"
#include "model/packing.h"

namespace pennyweight {

namespace {

// Some quantizers write a bias for each linear, of zeros where there was none.
void drop_zero_biases(const Claims& claims, Model& model) {
  if (!model.checkpoint.packed()) {
    return;
  }
  for (const auto& [name, info] : model.tensors.all()) {
    if (!name.ends_with(".bias") || claims.is_claimed(name) ||
        !claims.is_claimed(module_of(name) + ".weight") ||
        info.shape.size() != 1 || !is_stored_float(info.dtype)) {
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
    if (auto spec = claims.claim_module(packing.common, module)) {
      model.quantized.emplace(module.path, *spec);
    }
  }
  for (const BlockSpec& block : model.spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      claims.claim_norm(norm);
    }
  }
  for (const ParameterSpec& parameter : list_parameters(model.spec)) {
    claims.claim_float(parameter.name, parameter.shape);
  }
  for (const NormSpec& norm : list_outer_norms(model.spec)) {
    claims.claim_norm(norm);
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
          (matching.empty() ? "known are " + joined(known)
                            : "its tensors and config keys are those of " +
                   joined(matching) + ": --assume-family " + matching.front() +
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
