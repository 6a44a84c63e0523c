#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_spec.h"
#include "model/spec/block_spec.h"

namespace pennyweight {

class Checkpoint;
struct NamesSpec;  // model/names/names_spec.h

/// How a tensor, in the form that mlx-lm's sanitize gives it, is made of the
/// checkpoint's. Of `squeezed`, `times` and `row_times`, `add`, `width_first`
/// and the rest one kind is used at a time.
struct TensorSource {
  std::string name;  // in the checkpoint
  /// If not 0, `count` tensors are stacked along a new first axis: numbers from
  /// 0 on take the place of the '#' in `name`.
  int64_t count = 0;
  /// If not 0, [split * n, in] is taken as [split, n, in] first.
  int split = 0;
  /// Every `step`th row from `first` to before `end` (0: to the last) is taken.
  /// Rows are the second axis from the end, or with `vectors` the last.
  int first = 0;
  int end = 0;
  int step = 1;
  bool vectors = false;
  bool transposed = false;  // in the last two axes, after all else
  /// Bytes [..., groups, 16] are taken as uint32 [..., groups * 4] first.
  bool words = false;
  bool squeezed = false;  // [1] becomes a scalar
  float add = 0;          // is added to each value, rounded to its type
  /// Each value is multiplied by `times` and by its row's factor. The factors,
  /// their product with `times` and the results are each rounded to the
  /// tensor's type.
  float times = 1;
  struct RowFactor {
    int64_t rows;
    float factor;
  };
  std::vector<RowFactor> row_times{};  // of all rows in turn, or empty
  /// [channels, 1, width] becomes [channels, width, 1].
  bool width_first = false;
  /// The name of stacked tensor `index`; `name` itself where none are stacked.
  std::string part(int64_t index) const {
    const auto at = name.find('#');
    return count == 0 || at == std::string::npos
        ? name
        : name.substr(0, at) + std::to_string(index) + name.substr(at + 1);
  }
  /// Whether each row is a row of the checkpoint's tensor, times a common
  /// factor at most.
  bool keeps_rows() const {
    return count == 0 && split == 0 && first == 0 && end == 0 && step == 1 &&
        !transposed && !words && !squeezed && add == 0 && !width_first &&
        row_times.empty();
  }
  /// Whether only the name differs.
  bool renames() const {
    return keeps_rows() && times == 1;
  }
  /// The axis that first, end and step are about.
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

/// A decoder as data. A family's file (families/) fills it from config.json
/// and the tensor names; everything else works from it and never asks for the
/// family.
struct DecoderSpec {
  std::string family;  // config.json's model_type
  /// If not null, no more is known of the model than this, `sources` and
  /// `dropped`: it can't be run.
  std::shared_ptr<const NamesSpec> names;
  int64_t hidden = 0;
  int64_t vocab = 0;
  std::string embedding;  // module path; weight [vocab, hidden]
  float embedding_scale = 1;
  /// The eps of an RMS norm without a weight that embeddings go through.
  std::optional<float> embedding_eps;
  /// Whether mlx-lm rounds embedding_scale to the type that the model runs in.
  bool embedding_scale_in_type = false;
  float logit_scale = 1;
  float logit_cap = 0;  // logits become cap * tanh(logit / cap); 0: they stay
  std::optional<TokenInputsSpec> token_inputs;
  std::vector<BlockSpec> blocks;
  NormSpec final_norm;
  std::optional<LinearSpec> head;  // absent: the embedding is the head too
  /// The width in which the family's publisher packs experts. A model in which
  /// the experts, and nothing else, are packed in it is the published one,
  /// whatever program wrote the folder.
  std::optional<QuantSpec> experts_published_as;
  /// BlockSpec::published for modules outside the blocks.
  std::map<std::string, QuantSpec> published;

  /// Tensors that the checkpoint may hold in another form than mlx-lm's, by
  /// mlx-lm's name. An entry whose source is absent is not used.
  std::map<std::string, TensorSource> sources;
  /// Checkpoint tensors that mlx-lm's sanitize drops, as is_among() reads them:
  /// names; prefixes of names, which end with a dot; or parts of names behind a
  /// '*'.
  std::vector<std::string> dropped;
  /// Likewise the tensors of heads that predict further tokens (multi-token
  /// prediction), which no class of mlx-lm reads: an output has them in a file
  /// of their own.
  std::vector<std::string> mtp;
  /// Prefixes of tensors that are no part of the language model and go to an
  /// output as they are (a vision tower).
  std::vector<std::string> carried;
  /// What a user should know: what is dropped, and where mlx-lm, and so this
  /// spec, computes something else than transformers.
  std::vector<std::string> notes;
  /// Keys that an output's config.json needs so that stock mlx-lm reads the
  /// same model, where the input's config spells them in a way that it does not
  /// know.
  Json config_patch = Json::object();
};

/// config.json's model_type.
std::string model_type_of(const Checkpoint& checkpoint);
bool is_known_family(const std::string& name);

/// Throws a not_supported Error for keys by which mlx-lm's loader does
/// something that is not done here.
void check_loader_keys(const Checkpoint& checkpoint);

/// The spec of a checkpoint, read as `family` from its config and the names and
/// shapes of its tensors. not_supported for a family or a structural config key
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

/// What a linear of a block reads. An expert reads only the rows of the tokens
/// that chose it.
enum class BlockInput {
  attention,     // the normed residual stream
  query_latent,  // the normed latent of queries (LatentSpec)
  value_latent,  // the normed latent of keys and values
  query_heads,   // one head's query channels without rope
  mixed,         // the result of the attention
  scanned,       // the result of a scan beside the attention
  mlp,           // the residual stream, normed for MLP or experts
  latent,        // the output of MoeSpec::latent_in, for experts
  router,        // the residual stream, normed for the router alone
  wide,          // the activated product of gate and up
  summed,        // the experts' sum, which MoeSpec::latent_out reads
  token,         // the residual stream behind the MLP
  token_wide,    // what the token brings, gated
};

/// A matrix of a model, and what it reads.
struct ModuleSpec {
  enum class Kind { embedding, linear, router, head };
  /// The groups that a user can name (`--pin attention=8`). A block's MLP
  /// beside experts is the shared expert.
  enum class Role {
    attention,
    experts,
    shared_expert,
    mlp,
    router,
    embedding,
    head,
    unknown,  // in a model that is known by names only
  };

  std::string path;
  Kind kind = Kind::linear;
  Role role = Role::attention;
  int block = -1;  // -1: outside the blocks
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
  /// Modules of equal input_id read the same activations (one Hessian). It is
  /// empty for an embedding that is not the head, too, since that reads tokens.
  std::string input_id;
  BlockInput input = BlockInput::attention;
  /// Whether it is an embedding that is the head, too.
  bool tied = false;
  bool packable = true;
  std::optional<QuantSpec> converts_as = std::nullopt;
  /// Whether mlx_lm.convert leaves it as it is unless a recipe says otherwise.
  bool converts_not = false;
  /// The stored module whose tensors hold it: itself, or the stack of which it
  /// is matrix `part` of `count`.
  std::string stored;
  int64_t part = -1;
  int64_t count = 0;
  bool expert = false;  // whether it reads only the tokens that chose it
  /// The width in which its publisher packed it, where that is so: it stays as
  /// it is, since there is no model of higher precision.
  std::optional<QuantSpec> published = std::nullopt;
};

/// Every matrix of the model, in the order of the forward pass: embedding, each
/// block's linears, and the head if it is a module of its own. Each can be
/// quantized where a group divides its rows.
std::vector<ModuleSpec> list_modules(const DecoderSpec& spec);
/// Every matrix of one block.
std::vector<ModuleSpec> list_modules(const BlockSpec& block);
/// The stored modules that hold these matrices. A stack is one module, with its
/// own path and otherwise the values of its matrix 0.
std::vector<ModuleSpec> list_stored_modules(const DecoderSpec& spec);
std::vector<ModuleSpec> list_stored_modules(const BlockSpec& block);

/// The inputs of the block's linears in the steps in which a forward pass can
/// make them: those of one step do not depend on linears that read others of
/// the same step.
std::vector<std::vector<BlockInput>> block_steps(const BlockSpec& block);

/// All norms of a block that have a weight, in the order of the forward pass.
std::vector<NormSpec> list_norms(const BlockSpec& block);
/// The norms outside the blocks.
std::vector<NormSpec> list_outer_norms(const DecoderSpec& spec);

/// All tensors of a block that are neither a matrix nor part of a norm.
std::vector<ParameterSpec> list_parameters(const BlockSpec& block);
/// Those of all blocks; for a model that is known by names only, all tensors
/// that are no matrix.
std::vector<ParameterSpec> list_parameters(const DecoderSpec& spec);

/// Routers decide for whole tokens and weigh little: 8 bits, in groups of 64.
/// So does mlx_lm.convert for most families.
QuantSpec router_spec();

/// How many blocks the model has, whether it can be run or is known by names.
int block_count(const DecoderSpec& spec);

}  // namespace pennyweight
