#include <cmath>
#include <limits>

#include "core/json.h"
#include "model/families/mixers/mixers.h"

namespace pennyweight {

namespace {

ScanShape read_falcon_scan(const JsonView& config, int64_t hidden) {
  auto shape = read_scan_shape(config, hidden, kMambaKeys);
  shape.conv_bias = config.boolean_or("mamba_conv_bias", true);
  shape.dt_most = std::numeric_limits<float>::infinity();
  if (config.integer("mamba_d_ssm", 1, kMaxWidth) !=
      int64_t{shape.heads} * shape.head_dim) {
    throw wrong_config(
        config, "\"mamba_d_ssm\" must be mamba_n_heads * mamba_d_head");
  }
  return shape;
}

std::vector<float>
read_factors(const JsonView& config, const char* key, size_t count) {
  std::vector<float> factors;
  for (double factor : config.numbers(key)) {
    factors.push_back(static_cast<float>(factor));
  }
  if (factors.size() != count) {
    throw wrong_config(
        config,
        "\"" + std::string(key) + "\" must be " + std::to_string(count) +
            " numbers");
  }
  return factors;
}

// Adds sources that multiply the hub's matrices as mlx-lm's sanitize does.
class Multipliers {
 public:
  Multipliers(const JsonView& config, DecoderSpec& spec)
      : config_(config), spec_(spec) {}

  void fold(const LinearSpec& linear, float factor) {
    fold(linear.path, factor);
  }
  void fold(const std::string& path, float factor) {
    TensorSource source{.name = path + ".weight"};
    source.times = factor;
    if (factor != 1) {
      spec_.sources.insert_or_assign(path + ".weight", std::move(source));
    }
  }
  float number(const char* key) const {
    return static_cast<float>(config_.number(key));
  }

  void fold_block(const BlockSpec& block) {
    const auto mlp = read_factors(config_, "mlp_multipliers", 2);
    const float in = number("attention_in_multiplier");
    fold(block.attention.q, in);
    fold(block.attention.k, in);
    fold(block.attention.o, number("attention_out_multiplier"));
    fold(block.mlp->gate, mlp[0]);
    fold(block.mlp->down, mlp[1]);
    fold(block.side_scan->out, number("ssm_out_multiplier"));
    fold_scan(block.side_scan->scan);
  }

 private:
  // The rows of gate, x, b, c and dt each have a factor.
  void fold_scan(const ScanSpec& scan) {
    const auto factors = read_factors(config_, "ssm_multipliers", 5);
    const int64_t inner = int64_t{scan.heads} * scan.head_dim;
    const int64_t states = int64_t{scan.groups} * scan.state;
    const std::vector<int64_t> rows{inner, inner, states, states, scan.heads};
    TensorSource source{.name = scan.in.path + ".weight"};
    source.times = number("ssm_in_multiplier");
    for (size_t i = 0; i < rows.size(); ++i) {
      source.row_times.push_back({rows[i], factors[i]});
    }
    spec_.sources.insert_or_assign(source.name, source);
  }

  const JsonView& config_;
  DecoderSpec& spec_;
};

void note_unfolded(const JsonView& config, DecoderSpec& spec) {
  const double key = config.number("key_multiplier");
  if (key != 1) {
    spec.notes.push_back(
        "key_multiplier " + Json(key).dump() +
        " is not used, as in mlx-lm, which folds the other multipliers into "
        "the weights");
  }
  if (config.number("attention_in_multiplier") != 1) {
    spec.notes.push_back(
        "attention_in_multiplier is not folded into v_proj, as in mlx-lm");
  }
}

void count_unused(const JsonView& config) {
  count_as_read(
      config,
      {"initializer_range",
       "mamba_chunk_size",
       "mamba_expand",
       "mamba_norm_before_gate",
       "mamba_use_mlp",
       "mlp_expansion_factor",
       "attention_in_multiplier",
       "attention_out_multiplier",
       "key_multiplier",
       "mlp_multipliers",
       "ssm_in_multiplier",
       "ssm_multipliers",
       "ssm_out_multiplier"});
}

void fill_falcon_block(
    const FamilyInput& input,
    const ScanShape& own,
    BlockSpec& block,
    DecoderSpec& spec) {
  const JsonView& config = input.config;
  const std::string path = block.path + ".mamba.";
  auto scan = make_scan(input, path, own, spec);
  if (config.boolean_or("mamba_rms_norm", false)) {
    scan.norm = scan_norm(path, own, spec.final_norm.eps);
    scan.norm_first = config.boolean_or("mamba_norm_before_gate", false);
  }
  auto layer = scan_layer(path, own, std::move(scan));
  layer.o.bias = config.boolean_or("projectors_bias", false);
  block.side_scan = SideScanSpec{std::move(*layer.scan), std::move(layer.o)};
  block.mlp_norm->path = block.path + ".pre_ff_layernorm";
  block.mlp = standard_mlp(
      block.path + ".feed_forward",
      spec.hidden,
      block.mlp->up.out,
      block.mlp->up.bias);
}

}  // namespace

// mlx_lm/models/falcon_h1.py: attention and a scan side by side, then an MLP.
DecoderSpec read_falcon_h1(const FamilyInput& input) {
  const JsonView& config = input.config;
  count_unused(config);
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .traditional = "rope_traditional",
       .final_norm_path = "model.final_layernorm"});
  const auto own = read_falcon_scan(config, spec.hidden);
  for (BlockSpec& block : spec.blocks) {
    fill_falcon_block(input, own, block, spec);
  }
  const float embedding = read_multiplier(config, "embedding_multiplier");
  const float head = read_multiplier(config, "lm_head_multiplier");
  if (!spec.head) {
    spec.logit_scale = head / embedding;
  }
  // mlx-lm tells the hub's form by the shape of the convolution.
  const auto stored =
      input.shape_of(spec.blocks.front().side_scan->scan.conv.name);
  if (stored.size() == 3 && stored[2] > stored[1]) {
    Multipliers folded(config, spec);
    folded.fold(spec.embedding, embedding);
    if (spec.head) {
      folded.fold(*spec.head, head);
    }
    for (const BlockSpec& block : spec.blocks) {
      folded.fold_block(block);
    }
    note_unfolded(config, spec);
  }
  return spec;
}

}  // namespace pennyweight
