#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_spec.h"
#include "model/rope_spec.h"

namespace pennyweight {

class Checkpoint;
struct NamesSpec;  // model/names/names_spec.h

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

/// How a tensor, as mlx-lm's sanitize leaves it, is made of the checkpoint's.
struct TensorSource {
  std::string name;
  /// Not 0: `count` tensors are stacked along a new first axis, in whose names
  /// a number stands for the '#'.
  int64_t count = 0;
  int split = 0;  // rows [split * n, in] are seen as [split, n, in] first
  /// Every `step`th row from `first` to before `end` (0: the last), rows being
  /// the second axis from the end, or with `vectors` the last.
  int first = 0;
  int end = 0;
  int step = 1;
  bool vectors = false;
  bool transposed = false;  // the last two axes, at last
  /// Bytes [..., groups, 16] are seen as words [..., groups * 4] first.
  bool words = false;
  bool squeezed = false;  // [1] becomes a scalar
  float add = 0;          // to each value, rounded to its type
  /// Each value is multiplied by it; or each row by the factor of the rows it
  /// is among. Factors, and products of `times` and them, and what they give
  /// are rounded to the tensor's type.
  float times = 1;
  struct RowFactor {
    int64_t rows;
    float factor;
  };
  std::vector<RowFactor> row_times{};
  /// [channels, 1, width] is turned to [channels, width, 1].
  bool width_first = false;
  /// The name of one of them.
  std::string part(int64_t index) const {
    const auto at = name.find('#');
    return count == 0 || at == std::string::npos
        ? name
        : name.substr(0, at) + std::to_string(index) + name.substr(at + 1);
  }
  /// Rows are the checkpoint's, but for their name and a common factor.
  bool keeps_rows() const {
    return count == 0 && split == 0 && first == 0 && end == 0 && step == 1 &&
        !transposed && !words && !squeezed && add == 0 && !width_first &&
        row_times.empty();
  }
  /// Only the name is another.
  bool renames() const {
    return keeps_rows() && times == 1;
  }
  size_t axis(size_t dimensions) const {
    return dimensions - (vectors || dimensions < 2 ? 1 : 2);
  }
};

/// What a token brings to each block, [blocks, size] (Gemma's per-layer
/// embeddings): (norm(projection(x) * projection_scale) + table[token] *
/// table_scale) * scale, x being the token's embedding.
struct TokenInputsSpec {
  std::string table;  // weight [vocab, blocks * size]
  int64_t vocab = 0;
  int64_t size = 0;
  float table_scale = 1;
  LinearSpec projection;  // [blocks * size, hidden]
  float projection_scale = 1;
  NormSpec norm;  // over size
  float scale = 1;
};

struct DecoderSpec {
  std::string family;  // config.json's model_type
  /// Not null: of the model nothing is known but this, what its tensors are
  /// made from, and what is dropped. It can't be run.
  std::shared_ptr<const NamesSpec> names;
  int64_t hidden = 0;
  int64_t vocab = 0;
  std::string embedding;  // module path; weight [vocab, hidden]
  float embedding_scale = 1;
  /// Embeddings are normed by an RMS norm of this eps without a weight.
  std::optional<float> embedding_eps;
  /// mlx-lm holds it in the type that the model runs in.
  bool embedding_scale_in_type = false;
  float logit_scale = 1;
  float logit_cap = 0;  // logits become cap * tanh(logit / cap); 0: they stay
  std::optional<TokenInputsSpec> token_inputs;
  std::vector<BlockSpec> blocks;
  NormSpec final_norm;
  std::optional<LinearSpec> head;  // absent: the embedding is the head too
  /// How the family's publisher packs experts. A model whose experts alone are
  /// packed, and so, is the published one, whoever wrote the folder.
  std::optional<QuantSpec> experts_published_as;
  /// As BlockSpec::published, of what is outside the blocks.
  std::map<std::string, QuantSpec> published;

  /// Tensors that the checkpoint may hold in another form than mlx-lm's, by
  /// mlx-lm's name. Those whose sources are absent are taken as they are.
  std::map<std::string, TensorSource> sources;
  /// Names of checkpoint tensors that mlx-lm's sanitize drops; or prefixes of
  /// such, which end with a dot; or parts of such behind a '*'.
  std::vector<std::string> dropped;
  /// The same of heads that predict further tokens (multi-token prediction),
  /// which no class of mlx-lm reads: an output carries them in a file of their
  /// own.
  std::vector<std::string> mtp;
  /// Prefixes of tensors that are no part of the language model and go to an
  /// output as they are (a vision tower).
  std::vector<std::string> carried;
  /// What a user should know: where mlx-lm, and so this spec, departs from
  /// transformers, what is dropped.
  std::vector<std::string> notes;
  /// Keys an output's config.json needs so that stock mlx-lm, which does not
  /// know the newer spelling in the input's, means the same model.
  Json config_patch = Json::object();
};

/// config.json's model_type.
std::string model_type_of(const Checkpoint& checkpoint);
bool is_known_family(const std::string& name);

/// not_supported Error for keys by which mlx-lm's loader does something that is
/// not done here.
void check_loader_keys(const Checkpoint& checkpoint);

/// The spec of a checkpoint, read as `family`, whose tensors are not looked at
/// beyond their names. not_supported for a family or a structural config key
/// that is not known, corrupt for values out of range; each names the key.
DecoderSpec read_decoder_spec(
    const Checkpoint& checkpoint,
    const std::string& family);

/// Whether `name` is in `names`, or begins with one of them that ends with a
/// dot, or holds what one of them has behind a '*'.
bool is_among(const std::string& name, const std::vector<std::string>& names);

/// Whether mlx-lm's class does not use a tensor: it is among `dropped` or
/// `mtp`.
bool is_unused(const std::string& name, const DecoderSpec& spec);

/// The path of the module that a tensor belongs to.
std::string module_of(const std::string& tensor);

/// What a linear of a block reads.
enum class BlockInput {
  attention,     // the normed residual stream
  query_latent,  // latent attention
  value_latent,
  query_heads,  // a head's channels without rope
  mixed,        // what attention gives
  scanned,      // what a scan beside it gives
  mlp,          // the normed residual stream; of an expert its tokens'
  latent,       // of an expert its tokens', by way of MoeSpec::latent_in
  router,       // the residual stream, normed for a router alone
  wide,         // the activated product of gate and up
  summed,       // the experts' sum, which MoeSpec::latent_out reads
  token,        // the residual stream behind the MLP
  token_wide,   // what the token brings, gated
};

/// A matrix, in the order of the forward pass.
struct ModuleSpec {
  enum class Kind { embedding, linear, router, head };
  /// What a user calls a group of modules by. A block's MLP beside experts is
  /// the shared expert.
  enum class Role {
    attention,
    experts,
    shared_expert,
    mlp,
    router,
    embedding,
    head,
    unknown,  // of a model that is known by names only
  };

  std::string path;
  Kind kind = Kind::linear;
  Role role = Role::attention;
  int block = -1;  // -1: outside the blocks
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
  /// Modules of equal input_id read the same activations (one Hessian). Empty
  /// for an embedding that is not the head too: its input are tokens.
  std::string input_id;
  BlockInput input = BlockInput::attention;
  /// The embedding is the head too.
  bool tied = false;
  bool packable = true;
  std::optional<QuantSpec> converts_as = std::nullopt;
  /// mlx_lm.convert leaves it as it is, but where a recipe says otherwise.
  bool converts_not = false;
  /// The module whose tensors hold it: itself, or the stack of which it is
  /// matrix `part` of `count`.
  std::string stored;
  int64_t part = -1;
  int64_t count = 0;
  bool expert = false;  // reads only the tokens that chose it
  /// How it came packed from its publisher, of whom there is nothing fuller: it
  /// stays so. Absent: it is in floats.
  std::optional<QuantSpec> published = std::nullopt;
};

/// Every matrix: embedding, each block's linears, the head if it is a module
/// of its own. Each can be quantized where a group fits.
std::vector<ModuleSpec> list_modules(const DecoderSpec& spec);
/// Those of one block.
std::vector<ModuleSpec> list_modules(const BlockSpec& block);
/// The same by the modules that hold them: a stack once, as its part 0 with
/// its own path.
std::vector<ModuleSpec> list_stored_modules(const DecoderSpec& spec);
std::vector<ModuleSpec> list_stored_modules(const BlockSpec& block);

/// The block's linears in the steps in which a forward pass can come by what
/// they read: inputs of one step do not depend on that step's linears.
std::vector<std::vector<BlockInput>> block_steps(const BlockSpec& block);

/// All norms that have a weight, in the order of the forward pass.
std::vector<NormSpec> list_norms(const BlockSpec& block);
/// Those outside the blocks.
std::vector<NormSpec> list_outer_norms(const DecoderSpec& spec);

/// All that is neither a matrix nor a norm.
std::vector<ParameterSpec> list_parameters(const BlockSpec& block);
/// The same of all blocks; of a model that is known by names all that is no
/// matrix.
std::vector<ParameterSpec> list_parameters(const DecoderSpec& spec);

/// How many blocks there are, of a model that is known by names, too.
int block_count(const DecoderSpec& spec);

}  // namespace pennyweight
