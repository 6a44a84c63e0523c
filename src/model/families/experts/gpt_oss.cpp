#include <array>

#include "core/json.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// The hub's tensors hold gate's and up's rows in turn, as mxfp4 blocks.
void add_sources(const std::string& path, DecoderSpec& spec) {
  struct Part {
    const char* name;
    const char* source;
    int first;
    int step;
  };
  for (const Part& part : std::array<Part, 3>{
           {{"gate_proj", "gate_up_proj", 0, 2},
            {"up_proj", "gate_up_proj", 1, 2},
            {"down_proj", "down_proj", 0, 1}}}) {
    const std::string to = path + "." + part.name;
    const std::string from = path + "." + part.source;
    TensorSource source;
    source.first = part.first;
    source.step = part.step;
    const auto add = [&](const char* suffix, const char* hub) {
      source.name = from + hub;
      spec.sources.emplace(to + suffix, source);
    };
    add(".scales", "_scales");
    source.vectors = true;
    add(".bias", "_bias");
    source.vectors = false;
    source.words = true;
    add(".weight", "_blocks");
  }
}

std::vector<int> read_gpt_oss_windows(
    const JsonView& config,
    int64_t layers,
    DecoderSpec& spec) {
  const int window = read_window(config, spec);
  const Json* types = find_layer_list(config, "layer_types", layers);
  std::vector<int> windows;
  for (int64_t i = 0; i < layers; ++i) {
    const bool full = types
        ? types->at(static_cast<size_t>(i)) == "full_attention"
        : i % 2 == 1;
    windows.push_back(full ? 0 : window);
  }
  return windows;
}

}  // namespace

// mlx_lm/models/gpt_oss.py: sinks, biases everywhere, clipped activations.
DecoderSpec read_gpt_oss(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input, {.qkv_bias = true, .output_bias = true, .head = HeadFact::own});
  const auto windows =
      read_gpt_oss_windows(config, std::ssize(spec.blocks), spec);
  spec.experts_published_as = make_quant_spec("mxfp4", {}, {});
  const auto counts = read_expert_counts(config, "num_local_experts");
  for (BlockSpec& block : spec.blocks) {
    const std::string path = block.path + ".mlp";
    auto& attention = block.attention;
    attention.window = windows[static_cast<size_t>(block.index)];
    attention.sinks =
        ParameterSpec{block.path + ".self_attn.sinks", {attention.heads}};
    MoeSpec moe;
    moe.router = {
        .path = path + ".router",
        .out = counts.count,
        .in = spec.hidden,
        .bias = true,
        .converts_as = router_spec()};
    moe.experts =
        standard_mlp(path + ".experts", spec.hidden, block.mlp->up.out, true);
    moe.experts.activation = Activation::clipped;
    for (LinearSpec* linear :
         {&moe.experts.gate, &moe.experts.up, &moe.experts.down}) {
      linear->count = counts.count;
    }
    moe.count = counts.count;
    moe.chosen = counts.chosen;
    moe.scores = MoeSpec::Scores::chosen_softmax;
    block.moe = std::move(moe);
    block.mlp.reset();
    add_sources(path + ".experts", spec);
  }
  return spec;
}

}  // namespace pennyweight
