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

/// The sizes every such config has, range-checked (corrupt Error): hidden,
/// intermediate, vocab, layers, heads, eps and, where given, kv_heads and
/// head_dim with their usual defaults.
StandardShape read_standard_shape(
    const JsonView& config,
    const char* eps = "rms_norm_eps");

/// Throws a not_supported Error that names the config.
[[noreturn]] void refuse_config(
    const JsonView& config,
    const std::string& what);

/// mlx-lm's class has `activation` whatever the config says: notes a config
/// that says otherwise (silu goes by the name of swish, too).
void note_activation(
    const JsonView& config,
    DecoderSpec& spec,
    const std::string& activation = "silu",
    const char* key = "hidden_act");

/// A number that must be above 0.
float read_multiplier(const JsonView& config, const char* key);

/// Whether the head is the embedding, as tie_word_embeddings says. Where the
/// config is silent the tensors decide: the head's weight means a head of its
/// own, and without one the head is the embedding, unless files are missing.
/// What an output's config needs then goes to the spec's config_patch.
bool read_tied(
    const FamilyInput& input,
    DecoderSpec& spec,
    const char* embedding = "model.embed_tokens",
    const char* head = "lm_head");

/// For families whose class always ties: a head of its own is dropped, with a
/// note.
void drop_head(
    const FamilyInput& input,
    DecoderSpec& spec,
    const std::string& head = "lm_head");

/// Fills rope.base and the scaling from rope_theta and rope_scaling.
void read_rope(const JsonView& config, RopeSpec& rope, DecoderSpec& spec);
/// The same for a class that has rope_scaling and makes nothing of it, which
/// is noted.
void read_plain_rope(const JsonView& config, RopeSpec& rope, DecoderSpec& spec);

/// The class reads these keys, which are of no effect in some configs: they
/// count as read where nothing else asks for them.
void count_as_read(
    const JsonView& config,
    std::initializer_list<const char*> keys);

/// The patch of an inner config becomes one of the config around it, whose
/// text_config is `text`.
void nest_patch(const Json& text, DecoderSpec& spec);

/// Layers behind the last, which predict further tokens
/// (num_nextn_predict_layers), go to spec.mtp.
void set_next_layers_apart(const JsonView& config, DecoderSpec& spec);

/// q, k and v become one matrix, in this order.
void fuse_qkv(AttentionSpec& attention, const std::string& path);

/// gate and up become one matrix, gate_up_proj.
void fuse_gate_up(MlpSpec& mlp, const std::string& path);

/// gate_proj, up_proj and down_proj under `path`.
MlpSpec standard_mlp(
    const std::string& path,
    int64_t hidden,
    int64_t wide,
    bool bias = false);

/// For families whose mlx-lm class takes hidden_size / num_attention_heads for
/// the head dimension, whatever head_dim says, which is noted.
void use_plain_heads(StandardShape& shape, DecoderSpec& spec);

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

/// Queries that grow with their position, as Mistral's rope_parameters tell it,
/// and the config with these spread out to rope_theta and rope_scaling.
struct QueryGrowth {
  float beta = 0;
  int positions = 0;
  Json config;
};
/// `theta`: what the class takes where rope_parameters have no rope_theta.
/// corrupt Error for a number that is missing or out of range.
QueryGrowth read_query_growth(
    const JsonView& config,
    std::optional<double> theta = std::nullopt);

/// How many dims of a head partial_rotary_factor has rotated (corrupt Error
/// for none or an odd number).
int partial_dims(const JsonView& config, int head_dim, double fallback = 1);

inline constexpr int64_t kMaxWidth = int64_t{1} << 22;
inline constexpr int64_t kMaxLayers = 4096;

/// For classes that know a linear scaling alone, and make nothing of another.
void read_linear_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec);

/// Blocks, norms, embedding and head from `shape` into `spec`.
void fill_standard(const StandardShape& shape, DecoderSpec& spec);

}  // namespace pennyweight
