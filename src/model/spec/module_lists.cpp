// Lists the matrices of a model and of its blocks in the order of the forward
// pass.

#include <algorithm>

#include "model/names/names_spec.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

namespace {

std::optional<QuantSpec> published_among(
    const std::map<std::string, QuantSpec>& published,
    const std::string& path) {
  const auto it = published.find(path);
  return it == published.end() ? std::nullopt : std::optional(it->second);
}

class Lister {
 public:
  explicit Lister(const BlockSpec& block) : block_(block) {}

  void add(
      const LinearSpec& linear,
      BlockInput input,
      const std::string& input_id,
      ModuleSpec::Kind kind = ModuleSpec::Kind::linear) {
    ModuleSpec module{
        .path = linear.path,
        .kind = kind,
        .role =
            kind == ModuleSpec::Kind::router ? ModuleSpec::Role::router : role_,
        .block = block_.index,
        .out = linear.out,
        .in = linear.in,
        .bias = linear.bias,
        .input_id = input_id,
        .input = input,
        .packable = linear.packable,
        .converts_as = linear.converts_as,
        .stored = linear.path,
        .count = linear.count,
        .published = published_among(block_.published, linear.path)};
    if (linear.count == 0) {
      modules.push_back(std::move(module));
      return;
    }
    for (int64_t i = 0; i < linear.count; ++i) {
      module.path = part_path(linear.path, i);
      module.part = i;
      modules.push_back(module);
    }
  }

  void add_attention() {
    if (!block_.attends) {
      return;
    }
    const auto& attention = block_.attention;
    const std::string normed = block_.path + ".self_attn";
    if (attention.delta) {
      const auto& delta = *attention.delta;
      for (const auto& linear :
           {delta.qkvz, delta.ba, delta.qkv, delta.z, delta.b, delta.a}) {
        if (linear) {
          add(*linear, BlockInput::attention, normed);
        }
      }
    } else if (attention.short_conv) {
      add(attention.short_conv->in, BlockInput::attention, normed);
    } else if (attention.scan) {
      add(attention.scan->in, BlockInput::attention, normed);
    } else if (attention.latent) {
      add_latent(*attention.latent, normed);
    } else if (attention.qkv) {
      add(*attention.qkv, BlockInput::attention, normed);
    } else {
      add(attention.q, BlockInput::attention, normed);
      if (attention.keys_of < 0) {
        add(attention.k, BlockInput::attention, normed);
      }
      if (attention.keys_of < 0 && !attention.keys_as_values) {
        add(attention.v, BlockInput::attention, normed);
      }
    }
    if (attention.gate) {
      add(*attention.gate, BlockInput::attention, normed);
    }
    if (block_.side_scan) {
      add(block_.side_scan->scan.in, BlockInput::attention, normed);
    }
    if (!block_.parallel) {
      add(attention.o, BlockInput::mixed, attention.o.path);
    }
    if (block_.side_scan) {
      const LinearSpec& out = block_.side_scan->out;
      add(out, BlockInput::scanned, out.path);
    }
  }

  void add_mlp() {
    const std::string normed = block_.path + ".mlp";
    if (block_.moe) {
      const bool own = block_.moe->router_scale.has_value();
      add(block_.moe->router,
          own ? BlockInput::router : BlockInput::mlp,
          own ? block_.path + ".router" : normed,
          ModuleSpec::Kind::router);
      if (block_.moe->shared_gate) {
        add(*block_.moe->shared_gate,
            BlockInput::mlp,
            normed,
            ModuleSpec::Kind::router);
      }
    }
    const auto dense =
        block_.moe ? ModuleSpec::Role::shared_expert : ModuleSpec::Role::mlp;
    if (block_.moe && block_.moe->latent_in) {
      role_ = ModuleSpec::Role::mlp;  // every token reads it
      add(*block_.moe->latent_in, BlockInput::mlp, normed);
    }
    if (block_.mlp) {
      role_ = dense;
      const bool shares = block_.parallel && !block_.mlp_norm;
      add_wide(
          *block_.mlp,
          shares ? BlockInput::attention : BlockInput::mlp,
          shares ? block_.path + ".self_attn" : normed);
    }
    if (block_.moe) {
      add_experts(
          block_.moe->experts,
          block_.moe->latent_in ? BlockInput::latent : BlockInput::mlp);
    }
    if (block_.parallel) {
      role_ = ModuleSpec::Role::attention;
      add(block_.attention.o, BlockInput::mixed, block_.attention.o.path);
    }
    if (block_.mlp) {
      role_ = dense;
      add(block_.mlp->down, BlockInput::wide, block_.mlp->down.path);
    }
    if (block_.moe) {
      add_experts(block_.moe->experts, BlockInput::wide);
      if (const auto& out = block_.moe->latent_out) {
        role_ = ModuleSpec::Role::mlp;
        add(*out, BlockInput::summed, out->path);
      }
    }
    if (const auto& token = block_.token_gate) {
      add(token->gate, BlockInput::token, token->gate.path);
      add(token->out, BlockInput::token_wide, token->out.path);
    }
  }

  std::vector<ModuleSpec> modules;

 private:
  void add_latent(const LatentSpec& latent, const std::string& normed) {
    if (latent.q_a) {
      add(*latent.q_a, BlockInput::attention, normed);
    } else {
      add(block_.attention.q, BlockInput::attention, normed);
    }
    add(latent.kv_a, BlockInput::attention, normed);
    // Like a router's, these few weights decide much, and get 8 bits.
    const auto decides = ModuleSpec::Kind::router;
    if (latent.indexer) {
      add(latent.indexer->k, BlockInput::attention, normed, decides);
      add(latent.indexer->weights, BlockInput::attention, normed, decides);
    }
    if (latent.q_b) {
      add(*latent.q_b, BlockInput::query_latent, latent.q_b->path);
    }
    if (latent.indexer) {
      add(latent.indexer->q,
          BlockInput::query_latent,
          latent.q_b->path,
          decides);
    }
    if (latent.kv_b) {
      add(*latent.kv_b, BlockInput::value_latent, latent.kv_b->path);
      return;
    }
    add(*latent.value, BlockInput::value_latent, latent.value->path);
    const size_t first = modules.size();
    add(*latent.key, BlockInput::query_heads, latent.key->path);
    for (size_t i = first; i < modules.size(); ++i) {
      modules[i].input_id = modules[i].path;  // each head's own
    }
  }

  void
  add_wide(const MlpSpec& mlp, BlockInput input, const std::string& normed) {
    if (mlp.gate_up) {
      add(*mlp.gate_up, input, normed);
    } else {
      if (mlp.gated) {
        add(mlp.gate, input, normed);
      }
      add(mlp.up, input, normed);
    }
  }

  // Lists them expert by expert, so that modules of one input are neighbours.
  void add_experts(const MlpSpec& experts, BlockInput input) {
    Lister stacks(block_);
    if (input == BlockInput::wide) {
      stacks.add(experts.down, input, "");
    } else {
      if (experts.gated) {
        stacks.add(experts.gate, input, "");
      }
      stacks.add(experts.up, input, "");
    }
    std::ranges::stable_sort(stacks.modules, {}, &ModuleSpec::part);
    for (ModuleSpec& module : stacks.modules) {
      module.expert = true;
      module.role = ModuleSpec::Role::experts;
      module.input_id = part_path(
          block_.path + (input == BlockInput::wide ? ".wide" : ".experts"),
          module.part);
      modules.push_back(std::move(module));
    }
  }

  const BlockSpec& block_;
  ModuleSpec::Role role_ = ModuleSpec::Role::attention;  // of modules to add
};

std::vector<ModuleSpec> stored_among(const std::vector<ModuleSpec>& modules) {
  std::vector<ModuleSpec> stored;
  for (const ModuleSpec& module : modules) {
    if (module.part <= 0) {
      stored.push_back(module);
      stored.back().path = module.stored;
    }
  }
  return stored;
}

}  // namespace

std::string part_path(const std::string& stack, int64_t part) {
  return stack + "." + std::to_string(part);
}

std::vector<ModuleSpec> list_modules(const BlockSpec& block) {
  Lister lister(block);
  lister.add_attention();
  lister.add_mlp();
  return std::move(lister.modules);
}

std::vector<ModuleSpec> list_modules(const DecoderSpec& spec) {
  if (spec.names) {
    return spec.names->modules;
  }
  std::vector<ModuleSpec> modules;
  modules.push_back(
      {.path = spec.embedding,
       .kind = ModuleSpec::Kind::embedding,
       .role = ModuleSpec::Role::embedding,
       .out = spec.vocab,
       .in = spec.hidden,
       .input_id = spec.head ? "" : spec.final_norm.path,
       .tied = !spec.head,
       .stored = spec.embedding});
  if (const auto& token = spec.token_inputs) {
    modules.push_back(
        {.path = token->table,
         .kind = ModuleSpec::Kind::embedding,
         .out = token->vocab,
         .in = token->projection.out,
         .input_id = "",
         .stored = token->table});
    modules.push_back(
        {.path = token->projection.path,
         .out = token->projection.out,
         .in = token->projection.in,
         .input_id = spec.embedding,
         .stored = token->projection.path});
  }
  for (const BlockSpec& block : spec.blocks) {
    auto inner = list_modules(block);
    modules.insert(modules.end(), inner.begin(), inner.end());
  }
  if (spec.head) {
    modules.push_back(
        {.path = spec.head->path,
         .kind = ModuleSpec::Kind::head,
         .role = ModuleSpec::Role::head,
         .out = spec.head->out,
         .in = spec.head->in,
         .bias = spec.head->bias,
         .input_id = spec.final_norm.path,
         .converts_as = spec.head->converts_as,
         .stored = spec.head->path});
  }
  for (ModuleSpec& module : modules) {
    if (module.block < 0) {
      module.published = published_among(spec.published, module.stored);
    }
  }
  return modules;
}

std::vector<ModuleSpec> list_stored_modules(const DecoderSpec& spec) {
  return stored_among(list_modules(spec));
}

std::vector<ModuleSpec> list_stored_modules(const BlockSpec& block) {
  return stored_among(list_modules(block));
}

std::vector<std::vector<BlockInput>> block_steps(const BlockSpec& block) {
  std::vector<std::vector<BlockInput>> steps;
  const auto add_mlp = [&] {
    const bool latent = block.moe && block.moe->latent_in;
    steps.push_back({BlockInput::mlp});
    if (block.moe && block.moe->router_scale) {
      steps.back().push_back(BlockInput::router);
    }
    if (latent) {
      steps.push_back({BlockInput::latent});
    }
    steps.push_back({BlockInput::wide});
    if (latent) {
      steps.push_back({BlockInput::summed});
    }
  };
  if (!block.attends) {
    add_mlp();
    return steps;
  }
  steps.push_back({BlockInput::attention});
  if (block.attention.latent) {
    steps.push_back({BlockInput::query_latent, BlockInput::value_latent});
    if (block.attention.latent->key) {
      steps.push_back({BlockInput::query_heads});
    }
  }
  if (block.parallel) {
    if (block.mlp_norm) {
      steps.front().push_back(BlockInput::mlp);
    }
    steps.push_back({BlockInput::mixed, BlockInput::wide});
    return steps;
  }
  steps.push_back({BlockInput::mixed});
  if (block.side_scan) {
    steps.back().push_back(BlockInput::scanned);
  }
  if (block.has_mlp()) {
    add_mlp();
  }
  if (block.token_gate) {
    steps.push_back({BlockInput::token});
    steps.push_back({BlockInput::token_wide});
  }
  return steps;
}

int block_count(const DecoderSpec& spec) {
  return spec.names ? spec.names->layers : static_cast<int>(spec.blocks.size());
}

}  // namespace pennyweight
