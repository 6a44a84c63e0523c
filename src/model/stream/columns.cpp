#include "model/stream/columns.h"

#include <mlx/ops.h>

#include <algorithm>

#include "model/blocks/block_parts.h"

namespace pennyweight {

namespace {

int residual_columns(const BlockSpec& spec) {
  const LinearSpec& last = spec.attends ? spec.attention.o
      : spec.mlp                        ? spec.mlp->down
      : spec.moe->latent_out            ? *spec.moe->latent_out
                                        : spec.moe->experts.down;
  return static_cast<int>(last.out);
}

int columns_of(const std::vector<SharedKeys>& beside) {
  int columns = 0;
  for (const SharedKeys& shared : beside) {
    columns += shared.columns();
  }
  return columns;
}

SharedKeys keys_of(const BlockSpec& spec) {
  return {spec.index, spec.attention.kv_heads, spec.attention.head_dim};
}

// The column at which the keys of the block `block` begin in what `spec` reads.
int begin_of(const BlockSpec& spec, int block) {
  int begin = residual_columns(spec);
  for (const SharedKeys& shared : spec.reads) {
    if (shared.block == block) {
      break;
    }
    begin += shared.columns();
  }
  return begin;
}

}  // namespace

void link_shared_keys(DecoderSpec& spec) {
  const auto count = spec.blocks.size();
  // For each block the last one that reads its keys; 0 where none does.
  std::vector<size_t> last(count, 0);
  for (size_t i = 0; i < count; ++i) {
    if (const int from = spec.blocks[i].attention.keys_of; from >= 0) {
      last[static_cast<size_t>(from)] = i;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    for (size_t from = 0; from <= i; ++from) {
      const auto shared = keys_of(spec.blocks[from]);
      if (from < i && last[from] >= i) {
        spec.blocks[i].reads.push_back(shared);
      }
      if (last[from] > i) {
        spec.blocks[i].gives.push_back(shared);
      }
    }
  }
}

int read_columns(const BlockSpec& spec) {
  return residual_columns(spec) + columns_of(spec.reads);
}

int given_columns(const BlockSpec& spec) {
  return residual_columns(spec) + columns_of(spec.gives);
}

mx::array residual_of(const BlockSpec& spec, const mx::array& x) {
  const int columns = residual_columns(spec);
  return x.shape(-1) == columns ? x : last_axis(x, 0, columns);
}

std::optional<KeysAndValues>
shared_keys(const BlockSpec& spec, const mx::array& x, mx::Dtype dtype) {
  const auto& attention = spec.attention;
  if (attention.keys_of < 0) {
    return std::nullopt;
  }
  const int half = attention.kv_heads * attention.head_dim;
  const int begin = begin_of(spec, attention.keys_of);
  const auto part = [&](int first) {
    return mx::astype(
        split_heads(
            last_axis(x, first, first + half),
            attention.kv_heads,
            attention.head_dim),
        dtype);
  };
  return KeysAndValues{part(begin), part(begin + half)};
}

bool shares_keys(const BlockSpec& spec) {
  return std::ranges::any_of(spec.gives, [&](const SharedKeys& shared) {
    return shared.block == spec.index;
  });
}

mx::array with_given(
    const BlockSpec& spec,
    const mx::array& y,
    const mx::array& x,
    const std::optional<KeysAndValues>& own) {
  if (spec.gives.empty()) {
    return y;
  }
  std::vector<mx::array> parts{y};
  for (const SharedKeys& shared : spec.gives) {
    if (shared.block == spec.index) {
      for (const auto& part : {own->keys, own->values}) {
        parts.push_back(mx::astype(mx::flatten(part, 2, 3), mx::float32));
      }
      continue;
    }
    const int begin = begin_of(spec, shared.block);
    parts.push_back(last_axis(x, begin, begin + shared.columns()));
  }
  return mx::concatenate(std::move(parts), -1);
}

mx::array
with_columns(const BlockSpec& spec, const mx::array& y, const mx::array& x) {
  const int columns = residual_columns(spec);
  return x.shape(-1) == columns
      ? y
      : mx::concatenate({y, last_axis(x, columns, x.shape(-1))}, -1);
}

mx::array first_columns(const mx::array& x, int count) {
  return last_axis(x, 0, count);
}

mx::array token_input_of(const BlockSpec& spec, const mx::array& x) {
  const int size = static_cast<int>(spec.token_gate->gate.out);
  return last_axis(x, x.shape(-1) - size, x.shape(-1));
}

mx::array with_token_input(const mx::array& x, const mx::array& input) {
  return mx::concatenate({x, mx::astype(input, mx::float32)}, -1);
}

int input_columns(const BlockSpec& spec) {
  const int token =
      spec.token_gate ? static_cast<int>(spec.token_gate->gate.out) : 0;
  return read_columns(spec) + token;
}

mx::array padded_input(const mx::array& x, int columns) {
  std::vector<mx::array> parts{x};
  for (int more = columns - x.shape(-1); more > 0;) {
    const int some = std::min(more, x.shape(-1));
    parts.push_back(last_axis(x, 0, some));
    more -= some;
  }
  return parts.size() == 1 ? x : mx::concatenate(std::move(parts), -1);
}

}  // namespace pennyweight
