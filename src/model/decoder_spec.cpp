#include "model/decoder_spec.h"

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "model/families/family.h"

namespace pennyweight {

namespace {

ModuleSpec linear_module(
    const LinearSpec& linear,
    int block,
    const std::string& input_id) {
  return {
      .path = linear.path,
      .kind = ModuleSpec::Kind::linear,
      .block = block,
      .out = linear.out,
      .in = linear.in,
      .bias = linear.bias,
      .input_id = input_id};
}

}  // namespace

DecoderSpec read_decoder_spec(const Checkpoint& checkpoint) {
  JsonView config(
      checkpoint.config(), (checkpoint.folder() / "config.json").string());
  std::string type = config.string("model_type");
  std::string known;
  for (const Family& family : families()) {
    if (type == family.model_type) {
      auto spec = family.read({config, [&](const std::string& name) {
                                 return checkpoint.contains(name);
                               }});
      spec.family = type;
      return spec;
    }
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  throw Error(
      ErrorCode::not_supported,
      "model",
      config.origin() + ": model_type \"" + one_line(type, 60) +
          "\" is not supported; known are " + known);
}

std::string module_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

std::vector<ModuleSpec> list_modules(const BlockSpec& block) {
  const auto& attention = block.attention;
  const auto& mlp = block.mlp;
  std::string qkv = attention_input_id(block);
  std::string wide = mlp_input_id(block);
  return {
      linear_module(attention.q, block.index, qkv),
      linear_module(attention.k, block.index, qkv),
      linear_module(attention.v, block.index, qkv),
      linear_module(attention.o, block.index, attention.o.path),
      linear_module(mlp.gate, block.index, wide),
      linear_module(mlp.up, block.index, wide),
      linear_module(mlp.down, block.index, mlp.down.path)};
}

std::vector<ModuleSpec> list_modules(const DecoderSpec& spec) {
  std::vector<ModuleSpec> modules;
  modules.push_back(
      {.path = spec.embedding,
       .kind = ModuleSpec::Kind::embedding,
       .out = spec.vocab,
       .in = spec.hidden,
       .input_id = spec.head ? "" : spec.final_norm.path,
       .tied = !spec.head});
  for (const BlockSpec& block : spec.blocks) {
    auto inner = list_modules(block);
    modules.insert(modules.end(), inner.begin(), inner.end());
  }
  if (spec.head) {
    auto head = linear_module(*spec.head, -1, spec.final_norm.path);
    head.kind = ModuleSpec::Kind::head;
    modules.push_back(head);
  }
  return modules;
}

std::vector<ScaleGroup> list_scale_groups(const BlockSpec& block) {
  const auto& attention = block.attention;
  const auto& mlp = block.mlp;
  std::vector<ScaleGroup> groups;
  const auto add_norm = [&](const std::optional<NormSpec>& norm,
                            std::vector<std::string> linears) {
    if (norm) {
      groups.push_back(
          {.kind = ScaleGroup::Previous::norm,
           .previous = norm->path,
           .offset = norm->offset,
           .linears = std::move(linears),
           .channels = norm->size});
    }
  };
  add_norm(
      block.attention_norm,
      {attention.q.path, attention.k.path, attention.v.path});
  groups.push_back(
      {.kind = ScaleGroup::Previous::linear,
       .previous = attention.v.path,
       .linears = {attention.o.path},
       .channels = attention.o.in,
       .repeat = attention.heads / attention.kv_heads,
       .head_dim = attention.head_dim});
  add_norm(block.mlp_norm, {mlp.gate.path, mlp.up.path});
  groups.push_back(
      {.kind = ScaleGroup::Previous::linear,
       .previous = mlp.up.path,
       .linears = {mlp.down.path},
       .channels = mlp.down.in});
  return groups;
}

std::vector<NormSpec> list_norms(const BlockSpec& block) {
  std::vector<NormSpec> norms;
  for (const auto& norm :
       {block.attention_norm,
        block.attention.q_norm,
        block.attention.k_norm,
        block.attention_post,
        block.mlp_norm,
        block.mlp_post}) {
    if (norm) {
      norms.push_back(*norm);
    }
  }
  return norms;
}

std::string attention_input_id(const BlockSpec& block) {
  return block.path + ".self_attn";
}

std::string mlp_input_id(const BlockSpec& block) {
  return block.path + ".mlp";
}

}  // namespace pennyweight
