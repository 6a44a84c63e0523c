#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "format/quant_spec.h"
#include "model/spec/rope_spec.h"

namespace pennyweight {

/// These structs say as data what a block of a decoder is made of. Each `path`
/// is mlx-lm's path of a module, whose tensors are path.weight, path.bias and,
/// if it is quantized, path.scales and path.biases.

/// A matrix: weight [out, in], bias [out].
struct LinearSpec {
  std::string path;
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
  /// If not 0, the module is a stack of `count` matrices, weight [count, out,
  /// in], one for each expert or head.
  int64_t count = 0;
  /// False where mlx-lm holds a bare matrix, which it never packs.
  bool packable = true;
  /// The width that mlx_lm.convert gives it whatever width is asked for.
  std::optional<QuantSpec> converts_as = std::nullopt;
};

/// The path of matrix `part` of a stack.
std::string part_path(const std::string& stack, int64_t part);

/// An RMS norm, weight [size]: normed values are multiplied by `offset` plus
/// the stored weight.
struct NormSpec {
  std::string path;
  int64_t size = 0;
  float eps = 0;
  float offset = 0;
  bool centered = false;  // subtracts the mean first: a layer norm
  bool bias = false;      // adds a bias [size]
  bool bare = false;      // has no weight, and so no module at its path
  /// If not 0, each head has a weight of its own, weight [heads, size].
  int64_t heads = 0;
};

/// A tensor that is neither a matrix nor a norm.
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  bool keeps_type = false;  // mlx-lm's cast_predicate excepts it from casts
};

/// What chooses keys for latent attention (DeepSeek sparse attention). Of up to
/// `most` keys all are chosen, so that it has no part in the result; longer
/// texts are refused when they are run.
struct IndexerSpec {
  LinearSpec q;        // reads the query latent
  LinearSpec k;        // reads what the attention reads
  LinearSpec weights;  // likewise
  NormSpec k_norm;
  int most = 0;
};

/// Queries, keys and values by way of a latent (multi-head latent attention,
/// arXiv 2405.04434). Queries are q_b(norm(q_a(x))) or q(x); kv_a(x) gives the
/// latent of keys and values and, behind it, rope_dim key channels that all
/// heads share. Heads have nope_dim channels without rope before those with it.
struct LatentSpec {
  std::optional<LinearSpec> q_a, q_b;  // absent: AttentionSpec::q
  std::optional<NormSpec> q_norm;
  LinearSpec kv_a;
  NormSpec kv_norm;
  /// Either kv_b, [heads * (nope_dim + value_dim), rank], makes keys and values
  /// of the latent; or stacks over the heads do: `key` [heads, rank, nope_dim],
  /// which is used transposed, and `value` [heads, value_dim, rank].
  std::optional<LinearSpec> kv_b, key, value;
  int rank = 0;
  int nope_dim = 0;
  int rope_dim = 0;
  int value_dim = 0;
  std::optional<IndexerSpec> indexer;
};

/// Linear attention by the gated delta rule (ops/gated_delta.h, arXiv
/// 2412.06464) behind a short convolution over q, k and v. Its result is normed
/// by head, gated by z and read by AttentionSpec::o.
struct DeltaSpec {
  /// Either two matrices that hold the rows of q, k, v, z and of b, a for each
  /// key head in turn; or one for each part.
  std::optional<LinearSpec> qkvz, ba;
  std::optional<LinearSpec> qkv, z, b, a;
  ParameterSpec conv;   // [2 key_heads * key_dim + heads * value_dim, width, 1]
  ParameterSpec a_log;  // [heads]
  ParameterSpec dt_bias;  // [heads]
  NormSpec norm;          // [value_dim]
  int key_heads = 0;
  int heads = 0;
  int key_dim = 0;
  int value_dim = 0;
};

/// A gated short convolution in place of attention: `in` gives B, C and x, each
/// as wide as the input of AttentionSpec::o, which reads C * conv(B * x).
struct ShortConvSpec {
  LinearSpec in;                             // [3 channels, hidden]
  ParameterSpec conv;                        // [channels, width, 1]
  std::optional<ParameterSpec> conv_bias{};  // [channels]
};

/// Mamba-2's scan (ops::ssd_scan, arXiv 2405.21060) in place of attention or
/// beside it. `in` gives a gate, x, b, c and dt; x, b and c go through a short
/// convolution; the scan's result is gated, and normed by group before or after
/// that.
struct ScanSpec {
  LinearSpec in;  // [2 heads * head_dim + 2 groups * state + heads, hidden]
  ParameterSpec conv;  // [heads * head_dim + 2 groups * state, width, 1]
  std::optional<ParameterSpec> conv_bias;  // of as many entries
  ParameterSpec a_log, dt_bias, skip;      // [heads]
  std::optional<NormSpec> norm;            // [heads * head_dim]
  int norm_groups = 1;      // equal parts, each normed on its own
  bool norm_first = false;  // before the gate
  int heads = 0;
  int head_dim = 0;
  int groups = 0;
  int state = 0;
  float dt_least = 0;
  float dt_most = 0;  // may be infinite
};

/// A scan beside the attention, which reads the same input. Its result goes
/// through `out` [hidden, heads * head_dim], and is added to the residual
/// stream, too.
struct SideScanSpec {
  ScanSpec scan;
  LinearSpec out;
};

/// Grouped-query attention with rotary embedding: q [heads * head_dim, in],
/// k and v [kv_heads * head_dim, in], o [in, heads * head_dim].
struct AttentionSpec {
  LinearSpec q, k, v, o;
  /// In place of q, k and v: one matrix of the rows of q, then k, then v; or,
  /// with by_group, of each key head's queries, its key and its value in turn.
  std::optional<LinearSpec> qkv;
  bool by_group = false;
  /// What stands in place of the whole attention but o; at most one of them.
  std::optional<DeltaSpec> delta;
  std::optional<ShortConvSpec> short_conv;
  std::optional<ScanSpec> scan;
  /// q gives, behind each head's query, its gate: the head's result is
  /// multiplied by the sigmoid of that.
  bool gated = false;
  /// A matrix of its own gives the gates, [heads * head_dim, in], or one gate a
  /// head, [heads, in]: the result is multiplied by their sigmoid, or with
  /// softplus_gate by their softplus.
  std::optional<LinearSpec> gate;
  bool softplus_gate = false;
  /// In place of q, k and v; q stays where the latent has no q_a.
  std::optional<LatentSpec> latent;
  /// Norms of queries and keys before the rotary embedding, or behind it. They
  /// are over head_dim, or over all heads together where their size says so.
  std::optional<NormSpec> q_norm, k_norm;
  bool norms_behind_rope = false;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;  // of the scores
  int window = 0;   // keys at this distance and beyond are masked; 0: none
  RopeSpec rope;    // 0 dims: no rotary embedding
  float cap = 0;    // scores become cap * tanh(score / cap); 0: they stay
  /// Unless growth_beta is 0, queries at position p are multiplied by
  /// 1 + growth_beta * log(1 + floor(p / growth_positions)).
  float growth_beta = 0;
  int growth_positions = 0;
  /// Whether mlx-lm makes the scores of float16 queries in float32.
  bool wide_scores = false;
  /// An additional score for each head, to which no value belongs.
  std::optional<ParameterSpec> sinks;  // [heads]
  /// Values are the output of k, before the keys' norm: there is no v.
  bool keys_as_values = false;
  /// The eps of a norm without a weight that values go through.
  std::optional<float> value_eps;
  /// The block whose keys and values, normed and rotated, the queries read:
  /// there is neither k nor v. -1: the block's own.
  int keys_of = -1;
};

/// Keys and values that later blocks read. They are columns beside the residual
/// stream: the keys of all heads, then the values of all heads.
struct SharedKeys {
  int block = 0;  // the block that made them
  int kv_heads = 0;
  int head_dim = 0;

  int columns() const {
    return 2 * kv_heads * head_dim;
  }
};

/// Activations of an MLP. gelu is the approximation with tanh, gelu_erf the
/// exact function; clipped is gpt_oss's (up + 1) * gate * sigmoid(1.702 gate),
/// gate clipped at 7 and up at 7 and -7. Only MLPs without a gate have relu2,
/// relu(x)^2, and xielu, Apertus' (arXiv 2411.13010).
enum class Activation { silu, gelu, gelu_erf, clipped, relu2, xielu };

/// The parameters of xielu, which are scalars.
struct XieluSpec {
  ParameterSpec alpha_p, alpha_n, beta, eps;
};

/// An MLP: down(activation(gate(x)) * up(x)), or without a gate
/// down(activation(up(x))).
struct MlpSpec {
  LinearSpec gate, up, down;
  /// In place of gate and up: one matrix of the rows of gate, then those of up.
  std::optional<LinearSpec> gate_up{};
  Activation activation = Activation::silu;
  bool gated = true;
  std::optional<XieluSpec> xielu{};
};

/// A mixture of experts: each token goes through the `chosen` experts that
/// the router scores highest, and the results are added by their scores.
struct MoeSpec {
  enum class Scores {
    softmax,         // the softmax over all experts
    chosen_softmax,  // the softmax over the chosen ones
    sigmoid,
    /// Experts are chosen one after the other. The score of each is its share
    /// in a softmax over those near it, within 2 * jitter of it relatively
    /// (phimoe, arXiv 2409.12136).
    sparse_mixer,
  };

  LinearSpec router;  // [experts, in]
  MlpSpec experts;    // its linears are stacks
  int count = 0;      // of experts
  int chosen = 0;     // by each token
  Scores scores = Scores::softmax;
  bool normalize = false;   // the chosen scores are divided by their sum,
  float normalize_eps = 0;  // to which this is added first,
  float scale = 1;          // and then multiplied by this
  float jitter = 0;         // of sparse_mixer
  /// What is added to the scores for the choice alone.
  std::optional<ParameterSpec> correction;  // [experts]
  /// Experts stand in equal groups. Those of the best chosen_groups may be
  /// chosen: groups are compared by their highest score, or with two_highest by
  /// the sum of their two highest.
  int groups = 1;
  int chosen_groups = 1;
  bool two_highest = false;
  /// The experts read what latent_in [latent, hidden] makes of the input, and
  /// latent_out [hidden, latent] reads their sum.
  std::optional<LinearSpec> latent_in, latent_out;
  /// BlockSpec::mlp's result is multiplied by the sigmoid of this [1, in].
  std::optional<LinearSpec> shared_gate;
  /// `norm` stands before the experts in place of BlockSpec::mlp_norm; `post`
  /// behind the sum of their results; `mlp_post` behind the MLP beside them.
  std::optional<NormSpec> norm, post, mlp_post;
  /// Where it is there, the router reads the residual stream through an RMS
  /// norm of its own, with the weight router_scale / sqrt(hidden) and
  /// `router_eps`, in place of what the MLP reads.
  std::optional<ParameterSpec> router_scale;  // [hidden]
  float router_eps = 0;
  /// What the final scores of each expert are multiplied by.
  std::optional<ParameterSpec> expert_scale;  // [experts]
};

/// How a block takes in what the token brings to it (`input`, see
/// TokenInputsSpec): x += post(out(gelu(gate(x)) * input)).
struct TokenGateSpec {
  LinearSpec gate;  // [size, hidden]
  LinearSpec out;   // [hidden, size]
  NormSpec post;
};

/// A block: h = x + r * post(attention(norm(x))), and then the same with the
/// MLP. Norms may be absent. The MLP's result is the sum of those of `mlp` and
/// `moe`; where neither is there, the block is its attention alone. In a
/// parallel block attention and MLP both read x, through the same norm if there
/// is no mlp_norm, and both results are added to x.
struct BlockSpec {
  int index = 0;
  std::string path;
  std::optional<NormSpec> attention_norm, attention_post;
  bool attends = true;  // false: the block is its MLP alone
  AttentionSpec attention;
  std::optional<SideScanSpec> side_scan;
  std::optional<NormSpec> mlp_norm, mlp_post;
  std::optional<MlpSpec> mlp;
  std::optional<MoeSpec> moe;
  float residual_scale = 1;  // r
  /// Whether mlx-lm clips a float16 residual stream to float16's range.
  bool clips_residual = false;
  bool parallel = false;
  /// It stands behind the MLP.
  std::optional<TokenGateSpec> token_gate;
  /// What the block's result is multiplied by, at last.
  std::optional<ParameterSpec> scalar;  // [1]
  /// The shared keys beside the residual stream that the block reads, and those
  /// beside the one that it gives (model/stream/columns.h).
  std::vector<SharedKeys> reads, gives;
  /// Linears that their publisher packed, by path: they stay as they are.
  std::map<std::string, QuantSpec> published;

  bool has_mlp() const {
    return mlp || moe;
  }
};

}  // namespace pennyweight
