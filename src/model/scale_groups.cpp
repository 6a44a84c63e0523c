// Which op can take over scales of which linears' inputs.

#include <numeric>
#include <optional>

#include "model/scale_groups.h"

namespace pennyweight {

namespace {

class Groups {
 public:
  explicit Groups(const BlockSpec& block) : block_(block) {}

  void add_norm(
      const std::optional<NormSpec>& norm,
      std::vector<std::string> linears) {
    if (norm && !linears.empty()) {
      groups.push_back(
          {.kind = ScaleGroup::Previous::norm,
           .previous = norm->path,
           .offset = norm->offset,
           .bias = norm->bias,
           .linears = std::move(linears),
           .channels = norm->size,
           .from = {},
           .outputs = norm->size});
    }
  }

  void add_linear(
      const LinearSpec& previous,
      const std::string& next,
      std::vector<int32_t> from,
      float power = 1) {
    const auto channels = static_cast<int64_t>(from.size());
    groups.push_back(
        {.kind = ScaleGroup::Previous::linear,
         .previous = previous.path,
         .linears = {next},
         .channels = channels,
         .from = std::move(from),
         .outputs = previous.out,
         .power = power});
  }

  /// Linears of the block that read `input`: all of them, or experts alone, or
  /// all but experts.
  std::vector<std::string> readers(
      BlockInput input,
      std::optional<bool> experts = std::nullopt) const {
    std::vector<std::string> paths;
    for (const ModuleSpec& module : list_modules(block_)) {
      if (module.input == input &&
          module.expert == experts.value_or(module.expert)) {
        paths.push_back(module.path);
      }
    }
    return paths;
  }

  // ScaleGroup::from for `count` heads of `size` channels, of which `repeat` in
  // turn read the same output channels: input channel h * size + d is fed by
  // output channel first + (h / repeat) * stride + d.
  static std::vector<int32_t>
  heads(int count, int repeat, int64_t size, int64_t stride, int64_t first) {
    std::vector<int32_t> from;
    for (int64_t h = 0; h < count; ++h) {
      for (int64_t d = 0; d < size; ++d) {
        from.push_back(static_cast<int32_t>(first + h / repeat * stride + d));
      }
    }
    return from;
  }

  void add_values() {
    const auto& attention = block_.attention;
    const std::string& o = attention.o.path;
    const int repeat =
        attention.kv_heads ? attention.heads / attention.kv_heads : 1;
    const int64_t size = attention.head_dim;
    if (!block_.attends || attention.delta || attention.value_eps ||
        attention.keys_of >= 0) {
      return;  // a norm stands before o, or another block's values
    }
    if (attention.scan) {
      add_norm(attention.scan->norm, {o});
      return;
    }
    if (attention.short_conv) {
      // C, the second part of three, is multiplied by what the convolution
      // gives.
      const auto channels = static_cast<int>(attention.o.in);
      add_linear(
          attention.short_conv->in,
          o,
          heads(1, 1, channels, channels, channels));
      return;
    }
    if (attention.latent) {
      const auto& latent = *attention.latent;
      if (latent.kv_b) {
        add_linear(
            *latent.kv_b,
            o,
            heads(
                attention.heads,
                1,
                latent.value_dim,
                latent.nope_dim + latent.value_dim,
                latent.nope_dim));
      }
    } else if (attention.qkv) {
      const int64_t before = attention.by_group
          ? repeat + 1
          : attention.heads + attention.kv_heads;
      const int64_t stride = attention.by_group ? (repeat + 2) * size : size;
      add_linear(
          *attention.qkv,
          o,
          heads(attention.heads, repeat, size, stride, before * size));
    } else {
      add_linear(attention.v, o, heads(attention.heads, repeat, size, size, 0));
    }
  }

  void add_wide(const MlpSpec& mlp) {
    // down's input must be proportional to up's output. A constant that is
    // added to it (clipped) and an activation without a gate forbid that; a
    // squared one scales with the root.
    const bool bends = !mlp.gated && mlp.activation != Activation::relu2;
    if (mlp.activation == Activation::clipped || bends) {
      return;
    }
    std::vector<int32_t> from(static_cast<size_t>(mlp.down.in));
    if (mlp.gate_up) {
      std::iota(from.begin(), from.end(), static_cast<int32_t>(mlp.down.in));
      add_linear(*mlp.gate_up, mlp.down.path, std::move(from));
      return;
    }
    std::iota(from.begin(), from.end(), 0);
    for (int64_t i = 0; i < std::max<int64_t>(1, mlp.down.count); ++i) {
      const auto part = [&](LinearSpec linear) {
        if (linear.count > 0) {
          linear.path = part_path(linear.path, i);
        }
        return linear;
      };
      add_linear(part(mlp.up), part(mlp.down).path, from, mlp.gated ? 1 : 0.5f);
    }
  }

  std::vector<ScaleGroup> groups;

 private:
  const BlockSpec& block_;
};

}  // namespace

std::vector<ScaleGroup> list_scale_groups(const BlockSpec& block) {
  Groups list(block);
  list.add_norm(block.attention_norm, list.readers(BlockInput::attention));
  if (const auto& latent = block.attention.latent) {
    list.add_norm(latent->q_norm, list.readers(BlockInput::query_latent));
    auto readers = list.readers(BlockInput::value_latent);
    // The keys' stack reads the latent too, from its other side.
    if (!latent->key) {
      list.add_norm(latent->kv_norm, std::move(readers));
    }
  }
  list.add_values();
  if (block.side_scan) {
    list.add_norm(block.side_scan->scan.norm, {block.side_scan->out.path});
  }
  if (block.moe && block.moe->norm) {
    list.add_norm(block.mlp_norm, list.readers(BlockInput::mlp, false));
    list.add_norm(block.moe->norm, list.readers(BlockInput::mlp, true));
  } else {
    list.add_norm(block.mlp_norm, list.readers(BlockInput::mlp));
  }
  if (block.mlp) {
    list.add_wide(*block.mlp);
  }
  if (block.moe) {
    list.add_wide(block.moe->experts);
  }
  return std::move(list.groups);
}

}  // namespace pennyweight
