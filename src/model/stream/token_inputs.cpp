#include "model/stream/token_inputs.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "model/blocks/block_parts.h"

namespace pennyweight {

std::vector<mx::array> token_inputs(
    const EmbeddingAndHead& tables,
    const mx::array& tokens,
    const mx::array& x,
    mx::Dtype dtype) {
  std::vector<mx::array> inputs;
  if (!tables.token) {
    return inputs;
  }
  const auto& own = tables.token->spec;
  const auto times = [](const mx::array& value, float factor) {
    return mx::multiply(value, mx::array(factor));
  };
  const int size = static_cast<int>(own.size);
  const auto read = mx::astype(x, dtype);
  const auto brought = tables.token->table.take(tokens, tables.rounded);
  for (int first = 0; first < own.projection.out; first += size) {
    auto projected =
        tables.token->projection.rows(first, size)(read, mx::float32);
    projected = normed(
        own.norm,
        tables.token->norm,
        std::nullopt,
        times(projected, own.projection_scale),
        mx::float32);
    const auto sum = mx::add(
        projected,
        times(last_axis(brought, first, first + size), own.table_scale));
    inputs.push_back(mx::contiguous(mx::astype(times(sum, own.scale), dtype)));
  }
  mx::eval(inputs);
  return inputs;
}

TokenGradients token_gradients(
    const EmbeddingAndHead& tables,
    const mx::array& x,
    const mx::array& dy,
    mx::Dtype dtype) {
  const auto& token = *tables.token;
  const auto& own = token.spec;
  const auto times = [](const mx::array& value, float factor) {
    return mx::multiply(value, mx::array(factor));
  };
  const auto d = times(dy, own.scale);
  const auto projected = [&](const std::vector<mx::array>& at) {
    const auto all =
        ops::linear(mx::astype(at[0], dtype), at[1], std::nullopt, mx::float32);
    const auto split = mx::unflatten(
        times(all, own.projection_scale), -1, {-1, int(own.size)});
    const auto y =
        normed(own.norm, token.norm, std::nullopt, split, mx::float32);
    return std::vector<mx::array>{mx::flatten(y, -2, -1)};
  };
  const auto weight =
      *token.projection.dense_rows(0, token.projection.vocab()).dense;
  const auto by = mx::vjp(projected, {x, weight}, {d}).second;
  TokenGradients gradients{
      by[0],
      mx::flatten(times(d, own.table_scale), 0, 1),
      mx::astype(by[1], mx::float32)};
  mx::eval(gradients.x, gradients.rows, gradients.projection);
  return gradients;
}

}  // namespace pennyweight
