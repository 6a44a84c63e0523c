#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "model/families/family.h"

namespace pennyweight {

/// The sizes of llama's layout, which many families share: pre-norm blocks of
/// self_attn.{q,k,v,o}_proj and mlp.{gate,up,down}_proj under model.layers.N.
struct StandardShape {
  std::string prefix;  // what all paths begin with
  std::string embedding, final_norm, head;
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

/// A yes or no that is fixed for a family, or that a key of the config says;
/// then `value` is for a config without the key.
struct Fact {
  Fact(bool fixed) : value(fixed) {}
  Fact(const char* config_key, bool fallback = false)
      : key(config_key), value(fallback) {}

  const char* key = nullptr;
  bool value = false;
};

enum class HeadFact {
  as_told,  // as read_tied() says
  own,      // a module of its own, whatever tie_word_embeddings says
  tied,     // the embedding
  dropped,  // the embedding; a head in the checkpoint is dropped (drop_head())
};

enum class RopeFact {
  scaled,  // read_rope()
  plain,   // read_plain_rope()
  linear,  // read_linear_rope()
  own,     // the family reads it
};

/// Where a family's class in mlx-lm makes something else of a config than
/// llama's does; the defaults are llama's.
struct StandardFacts {
  const char* activation = "silu";  // nullptr: the family looks at it
  const char* activation_key = "hidden_act";
  const char* eps = "rms_norm_eps";
  bool plain_heads = false;  // use_plain_heads()
  Fact qkv_bias = false;
  Fact output_bias = false;
  Fact mlp_bias = false;
  Fact qk_norm = false;
  HeadFact head = HeadFact::as_told;
  Fact traditional = false;  // RopeSpec
  double part = 0;           // not 0: rope.dims = partial_dims(..., part)
  RopeFact rope = RopeFact::scaled;
  const char* embedding_path = "model.embed_tokens";
  const char* final_norm_path = "model.norm";
  const char* head_path = "lm_head";
};

/// Reads the sizes that every such config has, range-checked (corrupt Error),
/// and what `facts` say. Notes and patches go to `spec`. kv_heads and head_dim
/// have their usual defaults.
StandardShape read_standard_shape(
    const FamilyInput& input,
    const StandardFacts& facts,
    DecoderSpec& spec);

/// The whole spec of a family that differs from llama by `facts` alone.
DecoderSpec read_standard(const FamilyInput& input, const StandardFacts& facts);

/// A corrupt Error that names the config.
Error wrong_config(const JsonView& config, const std::string& what);

/// Throws a not_supported Error that names the config.
[[noreturn]] void refuse_config(
    const JsonView& config,
    const std::string& what);

/// The list under `key`, nullptr where it is absent. corrupt Error where it is
/// no list with an entry for each layer.
const Json*
find_layer_list(const JsonView& config, const char* key, int64_t layers);
/// The same, with a corrupt Error where it is absent.
const Json& layer_list(const JsonView& config, const char* key, int64_t layers);

/// Refuses a list of layer types of which none is full_attention, which most
/// classes look for.
void require_full_attention(const JsonView& config, const Json& types);

/// Refuses a rope_scaling that is not empty and has no factor, or another type
/// under `key` than one of `types`: the class can't be loaded with it.
void require_scaling(
    const JsonView& config,
    const char* key,
    const std::vector<std::string>& types);

/// Reads a number that must be above 0 (corrupt Error).
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

/// Drops the head of a checkpoint, if it has one, with a note: for families
/// whose class always ties.
void drop_head(
    const FamilyInput& input,
    DecoderSpec& spec,
    const std::string& head = "lm_head");

/// Gives `base` back, which must be above 1 (corrupt Error).
double check_rope_base(const JsonView& config, double base);

/// Fills rope.base and the scaling from rope_theta and rope_scaling.
void read_rope(const JsonView& config, RopeSpec& rope, DecoderSpec& spec);
/// Fills rope.base alone, for a class that has rope_scaling and does not use
/// it; a scaling is noted.
void read_plain_rope(const JsonView& config, RopeSpec& rope, DecoderSpec& spec);

/// Reads max_position_embeddings; without a `fallback` it must be there
/// (corrupt Error).
int read_positions(
    const JsonView& config,
    std::optional<int> fallback = std::nullopt);

/// sliding_window, for the layers that have one; 0: none. mlx-lm's classes take
/// a null for no window where a text is read at once, and can't go on with one
/// token by token: an output gets a window that is longer than any text.
/// corrupt Error where the key is missing or no length.
int read_window(const JsonView& config, DecoderSpec& spec);

/// Marks keys as read that the class reads and that have no effect in some
/// configs, so that check_reads() does not refuse them.
void count_as_read(
    const JsonView& config,
    std::initializer_list<const char*> keys);

/// Turns the patch of an inner config into one of the config around it, whose
/// text_config is `text`.
void nest_patch(const Json& text, DecoderSpec& spec);

/// Adds to spec.mtp the layers behind the last that predict further tokens
/// (num_nextn_predict_layers).
void set_next_layers_apart(const JsonView& config, DecoderSpec& spec);

/// Puts q, k and v into one matrix at `path`, in this order.
void fuse_qkv(AttentionSpec& attention, const std::string& path);

/// Puts gate and up into one matrix at path.gate_up_proj.
void fuse_gate_up(MlpSpec& mlp, const std::string& path);

/// Adds the sources of an MLP whose gate stands above up in one tensor,
/// `joined`; its down matrix is the tensor `down`.
void split_gate_up(
    const MlpSpec& mlp,
    const TensorSource& joined,
    const std::string& down,
    DecoderSpec& spec);

/// An MLP of gate_proj, up_proj and down_proj under `path`, `wide` rows wide
/// inside.
MlpSpec standard_mlp(
    const std::string& path,
    int64_t hidden,
    int64_t wide,
    bool bias = false);

/// Sets the head dimension to hidden_size / num_attention_heads, for families
/// whose class in mlx-lm takes that; a config that says otherwise is noted.
void use_plain_heads(StandardShape& shape, DecoderSpec& spec);

/// The norm block.path + `name` of the residual stream, with the eps of the
/// spec's final norm.
NormSpec block_norm(
    const BlockSpec& block,
    const char* name,
    const DecoderSpec& spec,
    float offset = 0);

/// Queries and keys are normed over all heads together.
void widen_head_norms(DecoderSpec& spec);

/// All norms but the heads' become layer norms.
void use_layer_norms(DecoderSpec& spec, bool bias);

/// Makes the blocks those of Gemma: norms before and behind each branch that
/// add 1 to their weights, gelu, scores scaled by 1 / sqrt(scalar).
void fill_gemma_blocks(double scalar, DecoderSpec& spec);

/// Adds a source for each tensor of the spec's modules, norms and parameters
/// whose name in the checkpoint, stored(name), is another one.
void add_stored_names(
    const std::function<std::string(const std::string&)>& stored,
    DecoderSpec& spec);

/// Has the tensors under `prefix` carried over to an output, since they are no
/// part of the language model; a note has their `count`.
void carry_over(const std::string& prefix, size_t count, DecoderSpec& spec);

/// How queries grow with their position (AttentionSpec::growth_beta), as
/// Mistral's rope_parameters say.
struct QueryGrowth {
  float beta = 0;
  int positions = 0;
  /// The config with rope_parameters spread out to rope_theta and rope_scaling.
  Json config;
};
/// Reads these. `theta` is what the class takes where rope_parameters have no
/// rope_theta. corrupt Error for a number that is missing or out of range.
QueryGrowth read_query_growth(
    const JsonView& config,
    std::optional<double> theta = std::nullopt);

/// How many dims of a head are rotated by partial_rotary_factor, or by
/// `fallback` where that is absent. corrupt Error for none or an odd number.
int partial_dims(const JsonView& config, int head_dim, double fallback = 1);

/// Bounds far above any model's sizes, which keep products within int64.
inline constexpr int64_t kMaxWidth = int64_t{1} << 22;
inline constexpr int64_t kMaxLayers = 4096;

/// Fills blocks, norms, embedding and head of `spec` from `shape`.
void fill_standard(const StandardShape& shape, DecoderSpec& spec);

}  // namespace pennyweight
