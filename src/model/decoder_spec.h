#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/rope_spec.h"

namespace pennyweight {

class Checkpoint;

/// A decoder as data. A family's file (families/) fills it from config.json
/// and the tensor names; everything else works from it and never asks for the
/// family. `path`s are mlx-lm's module paths: the tensors of a module are
/// path.weight, path.bias and, quantized, path.scales and path.biases.

/// weight [out, in], bias [out].
struct LinearSpec {
  std::string path;
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
};

/// RMS norm, weight [size]. What is multiplied by is `offset` plus the weight
/// that is stored.
struct NormSpec {
  std::string path;
  int64_t size = 0;
  float eps = 0;
  float offset = 0;
};

/// Grouped-query attention with rotary embedding: q [heads * head_dim, in],
/// k and v [kv_heads * head_dim, in], o [in, heads * head_dim].
struct AttentionSpec {
  LinearSpec q, k, v, o;
  // Before the rope: over head_dim, or over all heads together where the
  // norm is that wide.
  std::optional<NormSpec> q_norm, k_norm;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;
  int window = 0;  // keys at this distance and beyond are masked; 0: none
  RopeSpec rope;   // of no dims: none
};

/// gelu is the one with tanh.
enum class Activation { silu, gelu };

/// down(activation(gate(x)) * up(x)).
struct MlpSpec {
  LinearSpec gate, up, down;
  Activation activation = Activation::silu;
};

/// h = x + r post(attention(norm(x))), then likewise with the MLP; norms that
/// are absent leave what they get.
struct BlockSpec {
  int index = 0;
  std::string path;
  std::optional<NormSpec> attention_norm, attention_post;
  AttentionSpec attention;
  std::optional<NormSpec> mlp_norm, mlp_post;
  MlpSpec mlp;
  float residual_scale = 1;  // r
};

struct DecoderSpec {
  std::string family;  // config.json's model_type
  int64_t hidden = 0;
  int64_t vocab = 0;
  std::string embedding;  // module path; weight [vocab, hidden]
  float embedding_scale = 1;
  float logit_scale = 1;
  std::vector<BlockSpec> blocks;
  NormSpec final_norm;
  std::optional<LinearSpec> head;  // absent: the embedding is the head too

  /// Names of checkpoint tensors that mlx-lm's sanitize drops.
  std::vector<std::string> dropped;
  /// What a user should know: where mlx-lm, and so this spec, departs from
  /// transformers, what is dropped.
  std::vector<std::string> notes;
  /// Keys an output's config.json needs so that stock mlx-lm, which does not
  /// know the newer spelling in the input's, means the same model.
  Json config_patch = Json::object();
};

/// The spec of a checkpoint, whose tensors are not looked at beyond their
/// names. not_supported for a family or a structural config key that is not
/// known, corrupt for values out of range; each names the key.
DecoderSpec read_decoder_spec(const Checkpoint& checkpoint);

/// The path of the module that a tensor belongs to.
std::string module_of(const std::string& tensor);

/// A module with a matrix, in the order of the forward pass.
struct ModuleSpec {
  enum class Kind { embedding, linear, head };

  std::string path;
  Kind kind = Kind::linear;
  int block = -1;  // -1: outside the blocks
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
  /// Modules of equal input_id read the same activations (one Hessian). Empty
  /// for an embedding that is not the head too: its input are tokens.
  std::string input_id;
  /// The embedding is the head too.
  bool tied = false;
};

/// Every module with a matrix: embedding, each block's linears, the head if
/// it is a module of its own. Each can be quantized where a group fits.
std::vector<ModuleSpec> list_modules(const DecoderSpec& spec);
/// Those of one block.
std::vector<ModuleSpec> list_modules(const BlockSpec& block);

/// The input_id of q, k and v, and of gate and up; that of o and of down is
/// their own path.
std::string attention_input_id(const BlockSpec& block);
std::string mlp_input_id(const BlockSpec& block);

/// What can take over a scale of the input channels of `linears`: dividing
/// the previous op's output channel c by s_c and multiplying each linear's
/// input column by s leaves the model's function as it was.
struct ScaleGroup {
  enum class Previous {
    norm,    // weight[c] /= s[c]
    linear,  // weight[c, :] and bias[c] /= s[c]
  };

  Previous kind = Previous::norm;
  std::string previous;
  float offset = 0;  // of the norm
  std::vector<std::string> linears;
  int64_t channels = 0;  // input channels of the linears
  /// Output channel (h / repeat) * head_dim + d of `previous` feeds input
  /// channel h * head_dim + d: with repeat > 1 (v_proj to o_proj of grouped
  /// queries) the scales of `repeat` neighbouring heads must be equal.
  int repeat = 1;
  int head_dim = 0;  // 0: channels map one to one
};

std::vector<ScaleGroup> list_scale_groups(const BlockSpec& block);

/// All norms, in the order of the forward pass.
std::vector<NormSpec> list_norms(const BlockSpec& block);

}  // namespace pennyweight
