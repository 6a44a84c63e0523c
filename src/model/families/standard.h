#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/families/family.h"

namespace pennyweight {

/// The layout that llama began and many families share: pre-norm blocks of
/// self_attn.{q,k,v,o}_proj and mlp.{gate,up,down}_proj under model.layers.N.
struct StandardShape {
  std::string prefix;  // of all paths
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t vocab = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float eps = 0;
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  bool tied = false;
  RopeSpec rope;
  std::vector<int> windows;  // by layer; empty: none
};

/// What llama.py of mlx-lm reads; `more` are keys that a family on top of it
/// reads itself.
DecoderSpec read_llama_layout(
    const FamilyInput& input,
    const std::vector<const char*>& more);

/// The keys that every config has, which read_standard_shape(),
/// check_standard_config(), read_rope() and read_tied() read; and `more`.
std::vector<const char*> with_standard_keys(std::vector<const char*> more);

/// The sizes every such config has, range-checked (corrupt Error): hidden,
/// intermediate, vocab, layers, heads, eps and, where given, kv_heads and
/// head_dim with their usual defaults.
StandardShape read_standard_shape(const JsonView& config);

/// The activation must be `activation` (silu goes by the name of swish, too),
/// the architecture a causal language model.
void check_standard_config(
    const JsonView& config,
    const std::string& activation = "silu",
    const char* key = "hidden_act");

/// A number that must be above 0.
float read_multiplier(const JsonView& config, const char* key);

/// Whether the head is the embedding. mlx-lm's default is `fallback`; but a
/// config that does not say, beside an lm_head.weight, means a head of its
/// own, which goes to the spec's config_patch.
bool read_tied(const FamilyInput& input, bool fallback, DecoderSpec& spec);

/// Fills rope.base and the scaling from rope_theta and rope_scaling, or from
/// rope_parameters, where transformers 5 keeps both. `patch_parameters`: this
/// family's mlx-lm class does not read rope_parameters, so config_patch
/// spells them out.
void read_rope(
    const JsonView& config,
    std::optional<double> default_theta,
    bool patch_parameters,
    RopeSpec& rope,
    DecoderSpec& spec);

/// For families whose mlx-lm class has full attention only: tells in the
/// spec's notes that windows the config asks for are not used. not_supported
/// for layer types that are not attention.
void note_unused_windows(const JsonView& config, DecoderSpec& spec);

/// gate and up become one matrix, gate_up_proj.
void fuse_gate_up(MlpSpec& mlp, const std::string& path);

/// gate_proj, up_proj and down_proj under `path`.
MlpSpec standard_mlp(
    const std::string& path,
    int64_t hidden,
    int64_t wide,
    bool bias = false);

/// For families whose mlx-lm class takes hidden_size / num_attention_heads for
/// the head dimension, or knows no rope scaling: not_supported for a config
/// that asks for another.
void require_plain_heads(const JsonView& config, const StandardShape& shape);
void refuse_rope_scaling(const JsonView& config, const RopeSpec& rope);

/// `config` with mlx-lm's defaults for keys that are absent or null.
Json with_defaults(const Json& config, Json defaults);

/// Gemma's blocks: norms that add 1 before and behind, gelu, scores scaled by
/// 1 / sqrt(scalar).
void fill_gemma_blocks(
    const StandardShape& shape,
    double scalar,
    DecoderSpec& spec);

/// Tells where the tensors of the spec's modules, norms and parameters are in
/// the checkpoint: stored(name), where it is another name.
void add_stored_names(
    const std::function<std::string(const std::string&)>& stored,
    DecoderSpec& spec);

/// `count` tensors under `prefix` are no part of the language model.
void carry_over(const std::string& prefix, size_t count, DecoderSpec& spec);

/// Tells that sliding_window is not used.
void note_window(const JsonView& config, DecoderSpec& spec);

/// How many dims of a head partial_rotary_factor has rotated (corrupt Error
/// for none or an odd number).
int partial_dims(const JsonView& config, int head_dim, double fallback);

inline constexpr int64_t kMaxWidth = int64_t{1} << 22;
inline constexpr int64_t kMaxLayers = 4096;

/// Blocks, norms, embedding and head from `shape` into `spec`.
void fill_standard(const StandardShape& shape, DecoderSpec& spec);

}  // namespace pennyweight
