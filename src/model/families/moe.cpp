#include "model/families/moe.h"

namespace pennyweight {

namespace {

constexpr int64_t kMaxExperts = 1 << 12;
// The most experts in all layers together, ten times as many as any model has.
constexpr int64_t kMaxExpertsInAll = 1 << 17;

// Adds the sources of a stack that the checkpoint holds as single experts.
void add_sources(
    const std::string& stack,
    const std::string& experts,
    const char* name,
    int count,
    DecoderSpec& spec) {
  for (const char* suffix : {".weight", ".bias", ".scales", ".biases"}) {
    TensorSource source{.name = experts + ".#." + name + suffix};
    source.count = count;
    spec.sources.emplace(stack + suffix, std::move(source));
  }
}

MoeSpec standard_moe(
    const std::string& path,
    int64_t hidden,
    int64_t wide,
    const ExpertCounts& counts,
    DecoderSpec& spec,
    const ExpertNames& names) {
  MoeSpec moe;
  moe.router = {
      .path = path + "." + names.router, .out = counts.count, .in = hidden};
  moe.experts = standard_mlp(path + "." + names.stacks, hidden, wide);
  moe.count = counts.count;
  moe.chosen = counts.chosen;
  const std::string experts = path + ".experts";
  const auto make_stack = [&](LinearSpec& linear, const char* name) {
    linear.count = counts.count;
    add_sources(linear.path, experts, name, counts.count, spec);
  };
  make_stack(moe.experts.gate, names.gate);
  make_stack(moe.experts.up, names.up);
  make_stack(moe.experts.down, names.down);
  return moe;
}

}  // namespace

ExpertCounts read_expert_counts(
    const JsonView& config,
    const char* key,
    const char* chosen) {
  ExpertCounts counts;
  counts.count = static_cast<int>(config.integer(key, 1, kMaxExperts));
  counts.chosen = static_cast<int>(config.integer(chosen, 1, kMaxExperts));
  const auto layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  if (layers * counts.count > kMaxExpertsInAll) {
    throw wrong_config(config, "\"" + std::string(key) + "\" is out of range");
  }
  if (counts.chosen > counts.count) {
    throw wrong_config(
        config,
        "\"" + std::string(chosen) + "\" is more than there are experts");
  }
  return counts;
}

MoeSpec&
put_experts(const ExpertLayer& layer, BlockSpec& block, DecoderSpec& spec) {
  const std::string path = block.path + layer.path;
  const int64_t wide = layer.wide > 0 ? layer.wide : block.mlp->up.out;
  MoeSpec& moe = block.moe.emplace(
      standard_moe(path, spec.hidden, wide, layer.counts, spec, layer.names));
  for (LinearSpec* linear :
       {&moe.experts.gate, &moe.experts.up, &moe.experts.down}) {
    linear->bias = layer.bias;
  }
  block.mlp.reset();
  if (layer.shared > 0) {
    block.mlp = standard_mlp(
        path + layer.shared_path, spec.hidden, layer.shared, layer.shared_bias);
  }
  return moe;
}

void correct_choice(const std::string& path, MoeSpec& moe) {
  moe.correction = ParameterSpec{path, {int64_t{moe.count}}, true};
}

void read_router_scale(
    const JsonView& config,
    MoeSpec& moe,
    const char* normalize,
    const char* scale) {
  moe.normalize = moe.chosen > 1 && config.boolean_or(normalize, true);
  moe.scale = static_cast<float>(config.number_or(scale, 1));
  read_groups(config, moe);
}

void add_deepseek_experts(const JsonView& config, DecoderSpec& spec) {
  if (!config.has("n_routed_experts")) {
    return;
  }
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const ExpertLayer layer{
      .counts = read_expert_counts(config, "n_routed_experts"),
      .wide = wide,
      .shared = wide * config.integer_or("n_shared_experts", 0, 0, 1 << 10)};
  const auto dense =
      config.integer_or("first_k_dense_replace", 0, 0, kMaxLayers);
  const auto every = config.integer_or("moe_layer_freq", 1, 1, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index >= dense && block.index % every == 0) {
      put_experts(layer, block, spec);
    }
  }
}

void read_groups(const JsonView& config, MoeSpec& moe) {
  moe.groups = config.integer_or("n_group", 1, 1, moe.count);
  count_as_read(config, {"topk_group"});
  moe.chosen_groups = moe.groups == 1
      ? 1
      : static_cast<int>(config.integer_or("topk_group", 1, 1, moe.groups));
  moe.two_highest = true;
  if (moe.count % moe.groups != 0 ||
      (moe.groups > 1 && moe.count / moe.groups < 2)) {
    throw wrong_config(config, "\"n_group\" does not divide the experts");
  }
}

void read_corrected_router(
    const JsonView& config,
    const std::string& path,
    MoeSpec& moe) {
  if (config.string_or("topk_method", "noaux_tc") != "noaux_tc" ||
      config.string_or("scoring_func", "sigmoid") != "sigmoid") {
    refuse_config(
        config,
        "only topk_method noaux_tc and scoring_func sigmoid are known for this "
        "family, as in mlx-lm");
  }
  moe.router.packable = false;
  moe.scores = MoeSpec::Scores::sigmoid;
  correct_choice(path + ".gate.e_score_correction_bias", moe);
  read_router_scale(config, moe);
}

}  // namespace pennyweight
