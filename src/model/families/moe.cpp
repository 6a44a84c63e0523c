#include "model/families/moe.h"

#include "core/error.h"

namespace pennyweight {

namespace {

constexpr int64_t kMaxExperts = 1 << 12;
// The most experts in all layers together, ten times as many as any model has.
constexpr int64_t kMaxExpertsInAll = 1 << 17;

[[noreturn]] void wrong_experts(
    const JsonView& config,
    const std::string& what) {
  throw corrupt_error("model", config.origin() + ": " + what);
}

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

}  // namespace

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

ExpertCounts read_expert_counts(
    const JsonView& config,
    const char* key,
    const char* chosen) {
  ExpertCounts counts;
  counts.count = static_cast<int>(config.integer(key, 1, kMaxExperts));
  counts.chosen = static_cast<int>(config.integer(chosen, 1, kMaxExperts));
  const auto layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  if (layers * counts.count > kMaxExpertsInAll) {
    wrong_experts(config, "\"" + std::string(key) + "\" is out of range");
  }
  if (counts.chosen > counts.count) {
    wrong_experts(
        config,
        "\"" + std::string(chosen) + "\" is more than there are experts");
  }
  return counts;
}

void set_expert_biases(MoeSpec& moe, bool bias) {
  for (LinearSpec* linear :
       {&moe.experts.gate, &moe.experts.up, &moe.experts.down}) {
    linear->bias = bias;
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
    wrong_experts(config, "\"n_group\" does not divide the experts");
  }
}

void read_corrected_router(
    const JsonView& config,
    const std::string& path,
    MoeSpec& moe) {
  if (config.string_or("topk_method", "noaux_tc") != "noaux_tc" ||
      config.string_or("scoring_func", "sigmoid") != "sigmoid") {
    throw not_supported_error(
        "model",
        config.origin() +
            ": only topk_method noaux_tc and scoring_func sigmoid are known "
            "for this family, as in mlx-lm");
  }
  moe.router.packable = false;
  moe.scores = MoeSpec::Scores::sigmoid;
  moe.correction = ParameterSpec{
      path + ".gate.e_score_correction_bias", {int64_t{moe.count}}, true};
  moe.normalize = moe.chosen > 1 && config.boolean_or("norm_topk_prob", true);
  moe.scale = static_cast<float>(config.number_or("routed_scaling_factor", 1));
  read_groups(config, moe);
}

}  // namespace pennyweight
