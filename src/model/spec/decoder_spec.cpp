#include "model/spec/decoder_spec.h"

#include <mlx/ops.h>

#include <algorithm>
#include <set>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/json.h"
#include "model/config/class_keys.h"
#include "model/families/expert_layouts.h"
#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

std::vector<std::string> names_under(
    const Checkpoint& checkpoint,
    const std::string& prefix) {
  std::vector<std::string> names;
  const auto& all = checkpoint.tensors();
  for (auto it = all.lower_bound(prefix);
       it != all.end() && it->first.starts_with(prefix);
       ++it) {
    names.push_back(it->first);
  }
  return names;
}

void check_keys(const JsonView& config) {
  static const std::set<std::string> known = {
      "model_file",
      "quantization",
      "quantization_config",
      "quantize_activations",
      "text_config"};
  for (const auto& [key, value] : config.json().items()) {
    if (is_loader_key(key) && !known.contains(key) && !value.is_null()) {
      throw not_supported_error(
          "model",
          config.origin() + ": the key \"" + key +
              "\" changes how mlx-lm loads the model and is not known here");
    }
  }
  if (config.has("model_file")) {
    throw not_supported_error(
        "model",
        config.origin() + ": \"model_file\" asks to run code of its own");
  }
  if (const Json* value = config.find("quantize_activations");
      value && *value != false) {
    throw not_supported_error(
        "model",
        config.origin() +
            ": \"quantize_activations\" has mlx-lm round activations, too, "
            "which is not known here");
  }
}

// How many rows are compared to tell whether two matrices are the same.
constexpr int kSomeRows = 64;

bool rows_differ(
    const Checkpoint& checkpoint,
    const std::string& a,
    const std::string& b) {
  const auto& shape = checkpoint.info(a).shape;
  if (checkpoint.info(b).shape != shape || shape.size() != 2) {
    return true;
  }
  const int count = std::min(kSomeRows, shape[0]);
  return !mx::array_equal(
              checkpoint.load_rows(a, 0, count),
              checkpoint.load_rows(b, 0, count))
              .item<bool>();
}

// Drops a head that stands beside an embedding which is the head. Some tools
// write a copy there; training that ignored the tie leaves another matrix,
// which is noted.
void settle_unread_head(
    const Checkpoint& checkpoint,
    const FamilyInput& input,
    DecoderSpec& spec) {
  if (spec.head) {
    return;
  }
  const auto source = spec.sources.find(spec.embedding + ".weight");
  const auto embedding = source == spec.sources.end() ||
          checkpoint.contains(spec.embedding + ".weight")
      ? spec.embedding + ".weight"
      : source->second.name;
  for (const std::string prefix : {"", "language_model."}) {
    const auto head = prefix + "lm_head.weight";
    if (!checkpoint.contains(head)) {
      continue;
    }
    if (!is_unused(head, spec)) {
      drop_head(input, spec, prefix + "lm_head");
    }
    if (!checkpoint.is_streamed() && checkpoint.contains(embedding) &&
        rows_differ(checkpoint, head, embedding)) {
      spec.notes.push_back(
          head + " is another matrix than " + embedding +
          ", which is the head here, in mlx-lm and in transformers: if the "
          "model was trained with a head of its own, start from a config with "
          "tie_word_embeddings = false");
    }
  }
}

}  // namespace

void check_loader_keys(const Checkpoint& checkpoint) {
  check_keys(JsonView(
      checkpoint.config(), (checkpoint.folder() / "config.json").string()));
}

std::string model_type_of(const Checkpoint& checkpoint) {
  const auto origin = (checkpoint.folder() / "config.json").string();
  return JsonView(checkpoint.config(), origin).string("model_type");
}

bool is_known_family(const std::string& name) {
  return std::ranges::any_of(families(), [&](const Family& family) {
    return without_alias(name) == family.model_type;
  });
}

DecoderSpec read_decoder_spec(
    const Checkpoint& checkpoint,
    const std::string& family) {
  const JsonView config(
      checkpoint.config(), (checkpoint.folder() / "config.json").string());
  check_keys(config);
  for (const Family& known : families()) {
    if (without_alias(family) == known.model_type) {
      const FamilyInput input{
          .config = config,
          .has_tensor =
              [&](const std::string& name) {
                return checkpoint.contains(name);
              },
          .tensors_under =
              [&](const std::string& prefix) {
                return names_under(checkpoint, prefix);
              },
          .shape_of =
              [&](const std::string& name) {
                return checkpoint.contains(name) ? checkpoint.info(name).shape
                                                 : mx::Shape{};
              },
          .lacks_files = checkpoint.lacks_files()};
      auto spec = read_as(known.model_class, known.read, input);
      take_other_expert_layouts(input, spec);
      settle_unread_head(checkpoint, input, spec);
      spec.family = family;
      return spec;
    }
  }
  throw not_supported_error(
      "model", "there is no family " + one_line(family, 60));
}

bool is_among(const std::string& name, const std::vector<std::string>& names) {
  return std::ranges::any_of(names, [&](const std::string& other) {
    return name == other || (other.ends_with('.') && name.starts_with(other)) ||
        (other.starts_with('*') && name.find(other.substr(1)) != name.npos);
  });
}

bool is_unused(const std::string& name, const DecoderSpec& spec) {
  return is_among(name, spec.dropped) || is_among(name, spec.mtp);
}

std::string module_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

QuantSpec router_spec() {
  return make_quant_spec("affine", 8, 64);
}

}  // namespace pennyweight
