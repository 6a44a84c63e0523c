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

/// A decoder as data. A family's file (families/) fills it from config.json
/// and the tensor names; everything else works from it and never asks for the
/// family.
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
