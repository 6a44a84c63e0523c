#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "format/quant_spec.h"
#include "model/spec/rope_spec.h"

namespace pennyweight {

/// What a block of a decoder is made of, as data (DecoderSpec). `path`s are
/// mlx-lm's module paths: the tensors of a module are path.weight, path.bias
/// and, quantized, path.scales and path.biases.

/// weight [out, in], bias [out].
struct LinearSpec {
  std::string path;
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
  /// Not 0: `count` matrices of that shape stand in the module's tensors,
  /// weight [count, out, in], one for each expert or head.
  int64_t count = 0;
  /// Where mlx-lm holds a bare matrix: it is never packed.
  bool packable = true;
  /// What mlx_lm.convert gives it whatever it is asked for.
  std::optional<QuantSpec> converts_as = std::nullopt;
};

/// The path of one matrix of a stack.
std::string part_path(const std::string& stack, int64_t part);

/// RMS norm, weight [size]. What is multiplied by is `offset` plus the weight
/// that is stored.
struct NormSpec {
  std::string path;
  int64_t size = 0;
  float eps = 0;
  float offset = 0;
  bool centered = false;  // takes off the mean first: a layer norm
  bool bias = false;      // bias [size] is added
  bool bare = false;      // has no weight: no module stands behind the path
  /// Not 0: each head has a weight of its own, weight [heads, size].
  int64_t heads = 0;
};

/// A tensor that is neither a matrix nor a norm.
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  bool keeps_type = false;  // mlx-lm's cast_predicate excepts it from casts
};

/// Chooses keys for latent attention (DeepSeek sparse attention). Up to `most`
/// all are chosen, and it has no part in the result; longer texts are not run.
struct IndexerSpec {
  LinearSpec q;        // of the query latent
  LinearSpec k;        // of what the attention reads
  LinearSpec weights;  // the same
  NormSpec k_norm;
  int most = 0;
};

/// Queries, keys and values by way of a latent (multi-head latent attention,
/// arXiv 2405.04434): q_b(norm(q_a(x))) or q(x); kv_a(x) gives the latent of
/// keys and values and, behind it, rope_dim key channels that all heads
/// share. Heads have nope_dim channels without rope before those with it.
struct LatentSpec {
  std::optional<LinearSpec> q_a, q_b;  // absent: AttentionSpec::q
  std::optional<NormSpec> q_norm;
  LinearSpec kv_a;
  NormSpec kv_norm;
  /// [heads * (nope_dim + value_dim), rank]; or two stacks over the heads:
  /// keys' [heads, rank, nope_dim], which acts from its left, and values'
  /// [heads, value_dim, rank].
  std::optional<LinearSpec> kv_b, key, value;
  int rank = 0;
  int nope_dim = 0;
  int rope_dim = 0;
  int value_dim = 0;
  std::optional<IndexerSpec> indexer;
};

/// Linear attention by the gated delta rule (ops/gated_delta.h) behind a short
/// convolution over q, k and v; its result is normed by head, gated by z and
/// read by AttentionSpec::o.
struct DeltaSpec {
  /// q, k, v, z and b, a of each key head in turn; or each on its own.
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

/// A gated short convolution in place of attention: `in` gives three parts B, C
/// and x of AttentionSpec::o's width, which reads C conv(B x).
struct ShortConvSpec {
  LinearSpec in;                             // [3 channels, hidden]
  ParameterSpec conv;                        // [channels, width, 1]
  std::optional<ParameterSpec> conv_bias{};  // [channels]
};

/// Mamba-2's scan (ops::ssd_scan) in place of attention or beside it: `in`
/// gives a gate, x, b, c and dt; x, b and c go through a short convolution;
/// what the scan gives is gated, and normed by group before that or behind it.
struct ScanSpec {
  LinearSpec in;  // [2 heads * head_dim + 2 groups * state + heads, hidden]
  ParameterSpec conv;  // [heads * head_dim + 2 groups * state, width, 1]
  std::optional<ParameterSpec> conv_bias;  // [as many]
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

/// A scan beside the attention, which reads the same; what `out` [hidden, heads
/// * head_dim] makes of it is added to the residual stream, too.
struct SideScanSpec {
  ScanSpec scan;
  LinearSpec out;
};

/// Grouped-query attention with rotary embedding: q [heads * head_dim, in],
/// k and v [kv_heads * head_dim, in], o [in, heads * head_dim].
struct AttentionSpec {
  LinearSpec q, k, v, o;
  /// q, k and v above one another in one matrix, in place of them; or, by
  /// group, each key head's queries, its key and its value in turn.
  std::optional<LinearSpec> qkv;
  bool by_group = false;
  /// In place of all but o.
  std::optional<DeltaSpec> delta;
  std::optional<ShortConvSpec> short_conv;  // likewise
  std::optional<ScanSpec> scan;             // likewise
  /// q gives each head's gate behind its query; the head's result is
  /// multiplied by the gate's sigmoid.
  bool gated = false;
  /// Or a matrix of its own gives the gates, [heads * head_dim, in], or one for
  /// each head, [heads, in]: the result is multiplied by their sigmoid or
  /// softplus.
  std::optional<LinearSpec> gate;
  bool softplus_gate = false;
  /// In place of q, k and v, but for q where it has no q_a.
  std::optional<LatentSpec> latent;
  // Before the rope: over head_dim, or over all heads together where the
  // norm is that wide.
  std::optional<NormSpec> q_norm, k_norm;
  bool norms_behind_rope = false;  // instead
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;
  int window = 0;  // keys at this distance and beyond are masked; 0: none
  RopeSpec rope;   // of no dims: none
  float cap = 0;   // scores become cap * tanh(score / cap); 0: they stay
  /// Queries at position p are multiplied by
  /// 1 + beta * log(1 + floor(p / positions)); 0: they are not.
  float growth_beta = 0;
  int growth_positions = 0;
  /// mlx-lm makes the scores of float16 queries in float32.
  bool wide_scores = false;
  /// One more score a head, whose value is nothing.
  std::optional<ParameterSpec> sinks;  // [heads]
  /// Values are what k gives, before the keys' norm: there is no v.
  bool keys_as_values = false;
  std::optional<float> value_eps;  // values are normed, without a weight
  /// The block whose keys and values the queries read, kv_heads of them and
  /// ready: there is neither k nor v. -1: the block's own.
  int keys_of = -1;
};

/// Keys and values that blocks behind their own read: columns [keys of all
/// heads, values of all heads] beside the residual stream.
struct SharedKeys {
  int block = 0;  // whose they are
  int kv_heads = 0;
  int head_dim = 0;

  int columns() const {
    return 2 * kv_heads * head_dim;
  }
};

/// gelu is the one with tanh, gelu_erf the exact one; clipped is gpt_oss's
/// (up + 1) * gate * sigmoid(1.702 gate), both clipped at 7. Of MLPs without a
/// gate alone: relu2 is relu(x)^2, xielu Apertus' (arXiv 2411.13010).
enum class Activation { silu, gelu, gelu_erf, clipped, relu2, xielu };

/// Of xielu: ParameterSpecs of no dimensions.
struct XieluSpec {
  ParameterSpec alpha_p, alpha_n, beta, eps;
};

/// down(activation(gate(x)) * up(x)), or down(activation(up(x))).
struct MlpSpec {
  LinearSpec gate, up, down;
  /// gate and up above one another in one matrix, in place of them.
  std::optional<LinearSpec> gate_up{};
  Activation activation = Activation::silu;
  bool gated = true;
  std::optional<XieluSpec> xielu{};
};

/// A mixture of experts: each token goes through the `chosen` experts that
/// the router scores highest, and the results are added by their scores.
struct MoeSpec {
  enum class Scores {
    softmax,         // of all; then the highest
    chosen_softmax,  // of the highest
    sigmoid,
    /// One expert after the other, by the softmax of those near it (phimoe,
    /// arXiv 2409.12136): within 2 jitter of the highest, relative to it.
    sparse_mixer,
  };

  LinearSpec router;  // [experts, in]
  MlpSpec experts;    // stacks
  int count = 0;
  int chosen = 0;
  Scores scores = Scores::softmax;
  bool normalize = false;   // the chosen scores add up to 1
  float normalize_eps = 0;  // is added to their sum first
  float scale = 1;          // of the scores, at last
  float jitter = 0;         // of sparse_mixer
  /// Added to the scores for the choice alone.
  std::optional<ParameterSpec> correction;  // [experts]
  /// Experts in equal groups, of which only the best may be chosen from: by
  /// the highest score, or the sum of the two highest.
  int groups = 1;
  int chosen_groups = 1;
  bool two_highest = false;
  /// The experts read what latent_in [latent, hidden] makes of the input, and
  /// latent_out [hidden, latent] reads their sum.
  std::optional<LinearSpec> latent_in, latent_out;
  /// BlockSpec::mlp's result is multiplied by the sigmoid of this [1, in].
  std::optional<LinearSpec> shared_gate;
  /// What the experts read, in place of BlockSpec::mlp_norm's, and norms of
  /// what they and what the MLP beside them give.
  std::optional<NormSpec> norm, post, mlp_post;
  /// The router reads the residual stream, normed by this / sqrt(hidden) with
  /// `router_eps`, in place of what the MLP reads.
  std::optional<ParameterSpec> router_scale;  // [hidden]
  float router_eps = 0;
  /// Multiplies the scores of each expert, at last.
  std::optional<ParameterSpec> expert_scale;  // [experts]
};

/// What a token brings to a block by itself (TokenInputsSpec):
/// x += post(out(gelu(gate(x)) * input)).
struct TokenGateSpec {
  LinearSpec gate;  // [size, hidden]
  LinearSpec out;   // [hidden, size]
  NormSpec post;
};

/// h = x + r post(attention(norm(x))), then likewise with the MLP; norms that
/// are absent leave what they get. The MLP's part is that of `mlp` and that
/// of `moe`; where neither is there, the block is its attention alone. In a
/// parallel block both read x, by one norm if it has no mlp_norm, and both are
/// added to x.
struct BlockSpec {
  int index = 0;
  std::string path;
  std::optional<NormSpec> attention_norm, attention_post;
  bool attends = true;  // no: there is no attention, the block is its MLP
  AttentionSpec attention;
  std::optional<SideScanSpec> side_scan;
  std::optional<NormSpec> mlp_norm, mlp_post;
  std::optional<MlpSpec> mlp;
  std::optional<MoeSpec> moe;
  float residual_scale = 1;  // r
  /// mlx-lm keeps a float16 residual stream within its range.
  bool clips_residual = false;
  bool parallel = false;
  /// Behind the MLP.
  std::optional<TokenGateSpec> token_gate;
  /// Multiplies what the block gives.
  std::optional<ParameterSpec> scalar;  // [1]
  /// What stands beside the residual stream in what the block reads, and in
  /// what it gives (model/stream/columns.h).
  std::vector<SharedKeys> reads, gives;
  /// Linears that came packed from their publisher and stay so, by path.
  std::map<std::string, QuantSpec> published;

  bool has_mlp() const {
    return mlp || moe;
  }
};

}  // namespace pennyweight
