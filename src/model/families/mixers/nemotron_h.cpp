#include <limits>
#include <map>

#include "core/json.h"
#include "model/families/mixers/mixers.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// Reads the kinds of the layers as a string with a letter for each: a scan (M),
// attention (*), an MLP (-) or experts (E).
std::string read_pattern(const JsonView& config) {
  std::string pattern;
  const Json* own = config.find("hybrid_override_pattern");
  const Json* types = config.find("layers_block_type");
  const Json* others = config.find("layer_types");
  if (own && own->is_string()) {
    pattern = own->get<std::string>();
  } else if (const Json* list = own ? own : types ? types : others) {
    static const std::map<std::string, char> letters = {
        {"full_attention", '*'},
        {"attention", '*'},
        {"linear_attention", 'M'},
        {"mamba", 'M'},
        {"conv", 'M'},
        {"moe", 'E'},
        {"mlp", '-'},
        {"*", '*'},
        {"M", 'M'},
        {"E", 'E'},
        {"-", '-'}};
    for (const Json& type : *list) {
      const auto it = type.is_string() ? letters.find(type.get<std::string>())
                                       : letters.end();
      pattern += it == letters.end() ? '?' : it->second;
    }
  } else {
    throw wrong_config(
        config,
        "neither \"hybrid_override_pattern\" nor \"layers_block_type\" says "
        "what the layers are");
  }
  if (pattern.empty() || pattern.size() > size_t{kMaxLayers} ||
      pattern.find_first_not_of("M*-E") != std::string::npos) {
    throw wrong_config(
        config,
        "the pattern of layers " + one_line(pattern, 60) +
            " has others than M, *, - and E");
  }
  return pattern;
}

ScanShape read_nemotron_scan(const JsonView& config, int64_t hidden) {
  auto shape = read_scan_shape(
      config,
      hidden,
      {"mamba_num_heads",
       "mamba_head_dim",
       "n_groups",
       "ssm_state_size",
       "conv_kernel",
       "mamba_proj_bias",
       "use_conv_bias"});
  read_time_limit(config, 0, std::numeric_limits<float>::infinity(), shape);
  return shape;
}

MlpSpec
squared_mlp(const std::string& path, int64_t hidden, int64_t wide, bool bias) {
  MlpSpec mlp;
  mlp.up = {path + "up_proj", wide, hidden, bias};
  mlp.down = {path + "down_proj", hidden, wide, bias};
  mlp.activation = Activation::relu2;
  mlp.gated = false;
  return mlp;
}

void fill_nemotron_experts(
    const JsonView& config,
    const StandardShape& shape,
    const std::string& path,
    BlockSpec& block,
    DecoderSpec& spec) {
  const auto counts = read_expert_counts(config, "n_routed_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  MoeSpec moe;
  moe.router = {.path = path + "gate", .out = counts.count, .in = shape.hidden};
  moe.count = counts.count;
  moe.chosen = counts.chosen;
  int64_t in = shape.hidden;
  if (config.has("moe_latent_size")) {
    in = config.integer("moe_latent_size", 1, kMaxWidth);
    moe.latent_in =
        LinearSpec{path + "fc1_latent_proj", in, shape.hidden, shape.mlp_bias};
    moe.latent_out =
        LinearSpec{path + "fc2_latent_proj", shape.hidden, in, shape.mlp_bias};
  }
  moe.experts = squared_mlp(path + "switch_mlp.", in, wide, false);
  const auto stack = [&](LinearSpec& linear, const char* own, const char* hub) {
    linear.path = path + "switch_mlp." + own;
    linear.count = counts.count;
    TensorSource source{.name = path + "experts.#." + hub + ".weight"};
    source.count = counts.count;
    spec.sources.emplace(linear.path + ".weight", std::move(source));
  };
  stack(moe.experts.up, "fc1", "up_proj");
  stack(moe.experts.down, "fc2", "down_proj");
  read_corrected_router(config, path.substr(0, path.size() - 1), moe);
  moe.normalize = moe.chosen > 1 && config.boolean_or("norm_topk_prob", false);
  block.moe = std::move(moe);
  if (config.has("n_shared_experts")) {
    const auto shared = config.integer_or(
        "moe_shared_expert_intermediate_size",
        shape.intermediate,
        1,
        kMaxWidth);
    block.mlp = squared_mlp(
        path + "shared_experts.", shape.hidden, shared, shape.mlp_bias);
  }
}

void fill_nemotron_block(
    const FamilyInput& input,
    const StandardShape& shape,
    char kind,
    BlockSpec& block,
    DecoderSpec& spec) {
  const JsonView& config = input.config;
  const std::string path = block.path + ".mixer.";
  const NormSpec norm{block.path + ".norm", shape.hidden, shape.eps};
  block.attends = kind == 'M' || kind == '*';
  block.attention_norm.reset();
  block.mlp_norm.reset();
  block.mlp.reset();
  (block.attends ? block.attention_norm : block.mlp_norm) = norm;
  if (kind == '*') {
    block.attention.q.path = path + "q_proj";
    block.attention.k.path = path + "k_proj";
    block.attention.v.path = path + "v_proj";
    block.attention.o.path = path + "o_proj";
    return;
  }
  block.attention = {};
  if (kind == 'M') {
    const auto own = read_nemotron_scan(config, shape.hidden);
    auto scan = make_scan(input, path, own, spec);
    scan.a_log.keeps_type = true;
    scan.norm = scan_norm(path, own, shape.eps);
    scan.norm_groups = own.groups;
    block.attention = scan_layer(path, own, std::move(scan));
  } else if (kind == '-') {
    block.mlp =
        squared_mlp(path, shape.hidden, shape.intermediate, shape.mlp_bias);
  } else {
    fill_nemotron_experts(config, shape, path, block, spec);
  }
}

void check_nemotron_keys(const JsonView& config) {
  count_as_read(
      config,
      {"hybrid_override_pattern",
       "layer_types",
       "layers_block_type",
       "mamba_head_dim",
       "mamba_num_heads",
       "mamba_proj_bias",
       "max_position_embeddings",
       "moe_intermediate_size",
       "moe_latent_size",
       "moe_shared_expert_intermediate_size",
       "n_group",
       "n_groups",
       "n_routed_experts",
       "n_shared_experts",
       "norm_topk_prob",
       "num_experts_per_tok",
       "num_hidden_layers",
       "routed_scaling_factor",
       "ssm_state_size",
       "conv_kernel",
       "time_step_limit",
       "time_step_max",
       "time_step_min",
       "topk_group",
       "use_bias",
       "use_conv_bias"});
}

}  // namespace

// mlx_lm/models/nemotron_h.py: blocks of one part each.
DecoderSpec read_nemotron_h(const FamilyInput& input) {
  check_nemotron_keys(input.config);
  const auto pattern = read_pattern(input.config);
  Json values = input.config.json();
  values["num_hidden_layers"] = pattern.size();
  const auto own = input.like(values);
  DecoderSpec spec;
  auto shape = read_standard_shape(
      own,
      {.activation = nullptr,
       .eps = "layer_norm_epsilon",
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .head = HeadFact::own,
       .rope = RopeFact::own,
       .embedding_path = "backbone.embeddings",
       .final_norm_path = "backbone.norm_f"},
      spec);
  shape.rope.dims = 0;
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    block.path = "backbone.layers." + std::to_string(block.index);
    fill_nemotron_block(
        own, shape, pattern[static_cast<size_t>(block.index)], block, spec);
  }
  spec.mtp.push_back("mtp.");
  return spec;
}

}  // namespace pennyweight
