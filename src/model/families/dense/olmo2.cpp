// Families with norms behind attention and MLP, and none before them.

#include <algorithm>

#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

void put_norms_behind(DecoderSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm.reset();
    block.attention_post = block_norm(block, ".post_attention_layernorm", spec);
    block.mlp_norm.reset();
    block.mlp_post = block_norm(block, ".post_feedforward_layernorm", spec);
  }
}

// Whether each layer has a window: as layer_types says, or three of four.
std::vector<bool> read_olmo3_layers(const JsonView& config, int layers) {
  const Json* types = find_layer_list(config, "layer_types", layers);
  std::vector<bool> slides;
  for (int i = 0; i < layers; ++i) {
    slides.push_back(
        types ? types->at(static_cast<size_t>(i)) != "full_attention"
              : (i + 1) % 4 != 0);
  }
  const auto has = [&](const char* type, bool by_place) {
    return types ? std::ranges::find(*types, Json(type)) != types->end()
                 : std::ranges::find(slides, by_place) != slides.end();
  };
  if (!has("sliding_attention", true) || !has("full_attention", false)) {
    refuse_config(
        config,
        "no layer is of type full_attention or none of sliding_attention, "
        "without which mlx-lm can't load this family");
  }
  return slides;
}

// Reads which layers have a window, and with it a rotary embedding: those with
// an L in a string of L and G, which is repeated over the layers. It is empty
// where no layer has a window. Newer configs have layer_types or a number
// instead, and an output gets the string.
std::string
read_exaone4_pattern(const JsonView& config, int layers, DecoderSpec& spec) {
  const Json* given = config.find("sliding_window_pattern");
  const Json* types = config.find("layer_types");
  std::string pattern;
  if (given && given->is_string()) {
    pattern = given->get<std::string>();
  } else if (types && types->is_array()) {
    for (const Json& type : *types) {
      pattern += type == "sliding_attention" ? 'L' : 'G';
    }
    if (pattern.find('L') == std::string::npos) {
      pattern.clear();
    }
  } else if (given) {
    const auto every = config.integer("sliding_window_pattern", 2, 64);
    pattern = std::string(static_cast<size_t>(every - 1), 'L') + 'G';
  }
  if (!given || !given->is_string()) {
    spec.config_patch["sliding_window_pattern"] =
        pattern.empty() ? Json() : Json(pattern);
  }
  if (!config.has("sliding_window")) {
    spec.config_patch["sliding_window"] = nullptr;
  }
  // transformers 5, which reads the tokenizer's config, takes the string for a
  // number where this is not beside it.
  if (!pattern.empty() && !types) {
    Json all = Json::array();
    for (int i = 0; i < layers; ++i) {
      const char letter = pattern[static_cast<size_t>(i) % pattern.size()];
      all.push_back(letter == 'L' ? "sliding_attention" : "full_attention");
    }
    spec.config_patch["layer_types"] = std::move(all);
  }
  const auto first = [&](char letter) { return pattern.find(letter); };
  if (!pattern.empty() &&
      (std::max(first('L'), first('G')) >= static_cast<size_t>(layers))) {
    refuse_config(
        config,
        "sliding_window_pattern must have both L and G within the layers, "
        "without which mlx-lm can't run this family");
  }
  return pattern;
}

}  // namespace

// mlx_lm/models/olmo2.py: norms behind attention and MLP alone; queries and
// keys are normed over all heads together.
DecoderSpec read_olmo2(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .qk_norm = true,
       .traditional = "rope_traditional"});
  put_norms_behind(spec);
  widen_head_norms(spec);
  return spec;
}

// mlx_lm/models/olmo3.py: olmo2 with windows; layers that have one don't scale
// their rotary embedding.
DecoderSpec read_olmo3(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .qk_norm = true});
  const int window = read_window(config, spec);
  const auto slides = read_olmo3_layers(config, int(spec.blocks.size()));
  put_norms_behind(spec);
  widen_head_norms(spec);
  for (BlockSpec& block : spec.blocks) {
    auto& attention = block.attention;
    if (slides[static_cast<size_t>(block.index)]) {
      RopeSpec plain;
      plain.dims = attention.head_dim;
      plain.base = attention.rope.base;
      attention.rope = plain;
      attention.window = window;
    }
  }
  return spec;
}

// mlx_lm/models/exaone4.py: norms behind, heads normed one by one, windows and
// rotary embeddings on the same layers.
DecoderSpec read_exaone4(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(input, {.qk_norm = true});
  const auto pattern =
      read_exaone4_pattern(config, int(spec.blocks.size()), spec);
  count_as_read(config, {"sliding_window"});
  const int window = pattern.empty() ? 0 : read_window(config, spec);
  put_norms_behind(spec);
  for (BlockSpec& block : spec.blocks) {
    if (pattern.empty()) {
      continue;
    }
    const auto at = static_cast<size_t>(block.index) % pattern.size();
    if (pattern[at] == 'L') {
      block.attention.window = window;
    } else {
      block.attention.rope.dims = 0;
    }
  }
  return spec;
}

}  // namespace pennyweight
