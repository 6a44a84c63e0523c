#include "model/names/names_spec.h"

#include <algorithm>
#include <memory>

#include "checkpoint/quantization_entries.h"
#include "core/error.h"
#include "core/json.h"
#include "model/names/check_axes.h"
#include "model/names/class_names.h"
#include "model/names/present.h"
#include "model/names/rule_sources.h"
#include "model/tensors.h"

namespace pennyweight {

namespace {

using Kind = ClassNames::Tensor::Kind;

constexpr int64_t kMost = 1 << 20;  // layers, experts or rows

std::optional<ClassNames> names_of(const Checkpoint& checkpoint) {
  const Json& config = checkpoint.config();
  const auto it = config.find("architectures");
  return find_class_names(
      model_type_of(checkpoint), it == config.end() ? Json() : *it);
}

class Reader {
 public:
  Reader(const Checkpoint& checkpoint, ClassNames names)
      : checkpoint_(checkpoint),
        names_(std::move(names)),
        origin_((checkpoint.folder() / "config.json").string()),
        config_(checkpoint.config(), origin_),
        axes_(names_, checkpoint.config()) {}

  DecoderSpec read() {
    check_keys();
    read_facts();
    for (const auto& [name, info] : checkpoint_.tensors()) {
      place(name, info);
    }
    add_renamed();
    const ModelTensors tensors(checkpoint_, spec_.sources);
    for (const auto& [name, info] : tensors.all()) {
      describe(tensors, name, info);
    }
    require_present(tensors, names_, *own_, [this](const std::string& name) {
      missing(name);
    });
    finish();
    return std::move(spec_);
  }

 private:
  [[noreturn]] void corrupt(const std::string& what) const {
    throw corrupt_error("model", checkpoint_.folder().string() + ": " + what);
  }

  [[noreturn]] void missing(const std::string& name) const {
    throw Error(
        checkpoint_.lacks_files() ? ErrorCode::not_found : ErrorCode::corrupt,
        "model",
        checkpoint_.folder().string() + ": tensor " + name + " is missing" +
            checkpoint_.about_missing(name));
  }

  // The value of a key, which may be that of an inner object: "outer.inner".
  int64_t integer(const std::string& key) const {
    const auto dot = key.find('.');
    if (dot == key.npos) {
      return config_.integer(key, 1, kMost);
    }
    const auto inner = config_.object(key.substr(0, dot));
    if (!inner) {
      throw corrupt_error(
          "model", origin_ + ": there is no " + key.substr(0, dot));
    }
    return inner->integer(key.substr(dot + 1), 1, kMost);
  }

  bool boolean(const std::string& key, bool fallback) const {
    const auto dot = key.find('.');
    if (dot == key.npos) {
      return config_.boolean_or(key, fallback);
    }
    const auto inner = config_.object(key.substr(0, dot));
    return inner ? inner->boolean_or(key.substr(dot + 1), fallback) : fallback;
  }

  void check_keys() const {
    for (const auto& key : names_.facts.at("keys")) {
      if (!config_.json().contains(
              Json::json_pointer(key.get<std::string>()))) {
        throw corrupt_error(
            "model",
            origin_ + ": there is no " + key.get<std::string>().substr(1) +
                ", without which mlx-lm can't load a " + names_.name);
      }
    }
    for (const auto& [key, reason] : names_.facts.at("not_where").items()) {
      if (config_.boolean_or(key, false)) {
        throw not_supported_error(
            "model",
            origin_ + ": with \"" + key + "\" " + reason.get<std::string>());
      }
    }
  }

  void read_facts() {
    spec_.family = names_.name;
    spec_.hidden = 0;
    own_->layers =
        static_cast<int>(integer(names_.facts.at("count").get<std::string>()));
    own_->recipes = names_.facts.at("recipes").get<bool>();
    layers_ = names_.facts.at("layers").get<std::string>() + ".*";
    if (const auto it = names_.facts.find("tied"); it != names_.facts.end()) {
      own_->tied = boolean(
          it->at("key").get<std::string>(), it->at("default").get<bool>());
      drops_head_ = own_->tied && it->at("dropped").get<bool>();
    }
    for (const auto& pattern : names_.facts.at("dropped")) {
      const auto text = pattern.get<std::string>();
      auto& kind = text.find("mtp") == text.npos ? spec_.dropped : spec_.mtp;
      kind.push_back(text);
    }
  }

  // The table's entry for a name; null where there is none.
  const ClassNames::Tensor* find(const std::string& name) const {
    for (const auto& pattern : patterns_of(name)) {
      if (const auto it = names_.tensors.find(pattern);
          it != names_.tensors.end() && !is_beyond(pattern, name)) {
        return &it->second;
      }
    }
    return nullptr;
  }

  const std::vector<Json>* find_rules(const std::string& name) const {
    for (const auto& pattern : patterns_of(name)) {
      if (const auto it = names_.rules.find(pattern);
          it != names_.rules.end() && !is_beyond(pattern, name)) {
        return &it->second;
      }
    }
    return nullptr;
  }

  // Whether a name is that of a layer beyond those that the config counts.
  bool is_beyond(const std::string& pattern, const std::string& name) const {
    return pattern.starts_with(layers_ + ".") &&
        std::stoi(numbers_in(name).front()) >= own_->layers;
  }

  // Decides what becomes of a tensor of the checkpoint.
  void place(const std::string& name, const TensorInfo& info) {
    const auto* known = find(name);
    const auto* rules = find_rules(name);
    if (rules) {
      for (const Json& rule : *rules) {
        const bool in_place = rule.at("from") == rule.at("to");
        if (rule.contains("where_renamed")) {
          waiting_.emplace_back(name, &rule);
        } else if (in_place ? known && is_hubs(rule, *known, info) : !known) {
          renames_ = renames_ || !in_place;
          add_source(rule, info);
        }
      }
      return;
    }
    if (known && known->untied && drops_head_) {
      spec_.dropped.push_back(name);
      spec_.notes.push_back(
          one_line(name, 120) + " is left out: the embedding is the head");
    }
    if (!known) {
      place_unknown(name);
    }
  }

  void place_unknown(const std::string& name) {
    const auto numbers = numbers_in(name);
    if (names_.facts.at("beyond").get<bool>() && !numbers.empty() &&
        name.starts_with(filled(layers_, numbers) + ".") &&
        std::stoi(numbers.front()) >= own_->layers) {
      const auto prefix = filled(layers_, numbers) + ".";
      if (spec_.mtp.empty() || spec_.mtp.back() != prefix) {
        spec_.mtp.push_back(prefix);
      }
      return;
    }
    for (const auto& pattern : patterns_of(name)) {
      if (std::ranges::count(spec_.dropped, pattern) > 0 && pattern != name) {
        spec_.dropped.push_back(name);
        return;
      }
    }
  }

  // Whether a tensor under mlx-lm's name still has the hub's form.
  static bool is_hubs(
      const Json& rule,
      const ClassNames::Tensor& known,
      const TensorInfo& info) {
    return rule.contains("width_first")
        ? info.shape.size() == 3 && info.shape.back() != 1
        : info.shape.size() != known.dims;
  }

  void add_source(const Json& rule, const TensorInfo& info) {
    const RuleUse use{
        rule, info, [this](const std::string& key) { return integer(key); }};
    for (auto& [to, source] : sources_of(use)) {
      if (source.count > 0 && !checkpoint_.contains(source.part(0))) {
        missing(source.part(0));
      }
      spec_.sources.insert_or_assign(to, std::move(source));
    }
  }

  // Adds the sources of tensors that mlx-lm changes only in a checkpoint which
  // has the hub's names.
  void add_renamed() {
    for (const auto& [name, rule] : waiting_) {
      if (renames_) {
        add_source(*rule, checkpoint_.info(name));
      }
    }
  }

  void describe(
      const ModelTensors& tensors,
      const std::string& name,
      const TensorInfo& info) {
    const auto* known = find(name);
    if (!known || (known->untied && own_->tied)) {
      return;
    }
    check_axes(tensors, name, info);
    if (known->kind == Kind::bias) {
      return;
    }
    if (info.shape.size() != known->dims ||
        (known->thin && info.shape.back() != 1)) {
      corrupt(
          "tensor " + one_line(name, 120) +
          " is not of the form that mlx-lm's " + names_.name +
          " has under this name");
    }
    if (!known->count.empty() && info.shape[0] != integer(known->count)) {
      corrupt(
          "tensor " + one_line(name, 120) + " holds " +
          std::to_string(info.shape[0]) + " matrices, the config's " +
          known->count + " is " + std::to_string(integer(known->count)));
    }
    if (known->kind == Kind::parameter) {
      own_->parameters.push_back(
          {name,
           std::vector<int64_t>(info.shape.begin(), info.shape.end()),
           known->keeps_type});
      return;
    }
    own_->modules.push_back(module_of_names(tensors, *known, info));
  }

  // A wrong number in a shape or in the config, which mlx-lm can't load.
  void check_axes(
      const ModelTensors& tensors,
      const std::string& name,
      const TensorInfo& info) const {
    auto shape = info.shape;
    if (name.ends_with(".weight") && !shape.empty()) {
      shape.back() = static_cast<int>(width_of(tensors, module_of(name), info));
    } else if (tensors.contains(module_of(name) + ".scales")) {
      return;  // of a packed matrix
    }
    if (const auto what = axes_.wrong(name, shape); !what.empty()) {
      corrupt("tensor " + one_line(name, 120) + " " + what);
    }
  }

  ModuleSpec module_of_names(
      const ModelTensors& tensors,
      const ClassNames::Tensor& known,
      const TensorInfo& info) const {
    const size_t dims = info.shape.size();
    ModuleSpec module;
    module.path = module_of(info.name);
    const bool table = known.kind == Kind::embedding;
    module.kind = table ? ModuleSpec::Kind::embedding
        : known.untied  ? ModuleSpec::Kind::head
                        : ModuleSpec::Kind::linear;
    module.role = table ? ModuleSpec::Role::embedding
        : known.untied  ? ModuleSpec::Role::head
                        : ModuleSpec::Role::unknown;
    module.out = info.shape[dims - 2];
    module.in = width_of(tensors, module.path, info);
    module.count = dims > 2 ? info.shape[0] : 0;
    const auto bias = module.path + ".bias";
    module.bias = tensors.contains(bias) && find(bias);
    module.converts_as = known.own;
    const auto beside = module_of(module.path) + "." + known.kept_beside;
    module.converts_not =
        known.kept_beside.empty() ? known.kept : tensors.contains(beside);
    module.stored = module.path;
    return module;
  }

  // The number of weights in a row; for a packed matrix the config's bits say
  // how many stand in a word.
  int64_t width_of(
      const ModelTensors& tensors,
      const std::string& path,
      const TensorInfo& info) const {
    if (info.dtype != mx::uint32 || !tensors.contains(path + ".scales")) {
      return info.shape.back();
    }
    const Json& own = packing_.contains(path) ? packing_[path] : packing_;
    if (!own.is_object()) {
      throw not_supported_error(
          "model",
          origin_ + " does not say how " + one_line(path, 120) +
              " is packed, which can't be told by its name");
    }
    return int64_t{info.shape.back()} * 32 /
        quant_spec_from_json(JsonView(own, origin_)).bits;
  }

  void finish() {
    // In the order of the layers' numbers; modules outside of layers come
    // first.
    std::ranges::stable_sort(own_->modules, {}, [](const ModuleSpec& module) {
      std::vector<int> numbers;
      for (const auto& number : numbers_in(module.path)) {
        numbers.push_back(std::stoi(number));
      }
      return numbers;
    });
    for (const ModuleSpec& module : own_->modules) {
      if (module.kind == ModuleSpec::Kind::embedding && spec_.hidden == 0) {
        spec_.embedding = module.path;
        spec_.hidden = module.in;
        spec_.vocab = module.out;
      }
    }
    spec_.notes.push_back(about_names(checkpoint_));
    spec_.names = own_;
  }

  const Checkpoint& checkpoint_;
  const ClassNames names_;
  const std::string origin_;
  const JsonView config_;
  const AxisCheck axes_;
  const Json packing_ =
      read_quantization_entries(checkpoint_.config(), checkpoint_.folder()).mlx;
  DecoderSpec spec_;
  std::shared_ptr<NamesSpec> own_ = std::make_shared<NamesSpec>();
  std::string layers_;  // the pattern of a layer's path
  bool drops_head_ = false;
  bool renames_ = false;  // some tensor has the hub's name
  // Tensors and their rules that apply only if renames_ is true.
  std::vector<std::pair<std::string, const Json*>> waiting_;
};

}  // namespace

bool is_known_by_names(const Checkpoint& checkpoint) {
  const auto names = names_of(checkpoint);
  return names && names->not_taken.empty();
}

std::string why_not_by_names(const Checkpoint& checkpoint) {
  const auto names = names_of(checkpoint);
  return names ? names->not_taken : "";
}

std::string about_names(const Checkpoint& checkpoint) {
  return "model_type \"" + one_line(model_type_of(checkpoint), 60) +
      "\" is known by the names of its tensors only, so that no method but "
      "convert's rounding to nearest is to be had";
}

DecoderSpec read_names_spec(const Checkpoint& checkpoint) {
  auto names = names_of(checkpoint);
  if (!names || !names->not_taken.empty()) {
    throw argument_error("model", "the model is not known by names");
  }
  return Reader(checkpoint, std::move(*names)).read();
}

}  // namespace pennyweight
