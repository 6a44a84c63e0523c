// Writes the logits of a model for the parity tests:
//
//   probe_model FOLDER TOKENS BATCH LENGTH OUT DTYPE full|cached|folded
//
// TOKENS holds int32 [BATCH, LENGTH]; OUT gets float32 [BATCH, LENGTH, vocab].
// `cached` feeds the first half at once and the rest token by token, `folded`
// folds scales into every scale group of every block first.

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "logits.h"
#include "model/decoder.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"
#include "pass/fold.h"

namespace {

using namespace pennyweight;

mx::Dtype dtype_of(const std::string& name, const Model& model) {
  if (name == "float32") {
    return mx::float32;
  }
  if (name == "bfloat16") {
    return mx::bfloat16;
  }
  return name == "float16" ? mx::float16 : model.dtype;
}

// What the block reads: x, and what the tokens bring to it.
mx::array read_by(
    const BlockSpec& block,
    const mx::array& x,
    const std::vector<mx::array>& brought) {
  return block.token_gate
      ? with_token_input(x, brought.at(static_cast<size_t>(block.index)))
      : x;
}

mx::array
cached_logits(const Model& model, const mx::array& tokens, mx::Dtype dtype) {
  auto tables = load_embedding_and_head(model, dtype);
  std::vector<BlockCache> caches(model.spec.blocks.size());
  std::vector<mx::array> parts;
  int length = tokens.shape(1);
  for (int first = 0; first < length;) {
    int count = first == 0 ? std::max(1, length / 2) : 1;
    const auto ids =
        mx::slice(tokens, {0, first}, {tokens.shape(0), first + count});
    auto x = embed(tables, ids);
    const auto brought = token_inputs(tables, ids, x, dtype);
    for (const BlockSpec& block : model.spec.blocks) {
      ForwardContext context{.dtype = dtype, .cache = &caches[block.index]};
      x = run_block(
          block,
          load_block(model, block.index, dtype),
          read_by(block, x, brought),
          context);
    }
    auto normal = final_norm(model.spec, tables, x, dtype);
    int vocab = static_cast<int>(model.spec.vocab);
    // Two tiles, so that the split of the vocabulary is tested too.
    parts.push_back(mx::concatenate(
        {head_tile(tables, normal, 0, vocab / 3),
         head_tile(tables, normal, vocab / 3, vocab - vocab / 3)},
        -1));
    mx::eval(parts.back());
    first += count;
  }
  return mx::concatenate(parts, 1);
}

// Scales between a quarter and four, equal where one channel feeds several.
std::vector<float> some_scales(const ScaleGroup& group) {
  std::vector<float> scales;
  for (int64_t i = 0; i < group.channels; ++i) {
    const int64_t at =
        group.from.empty() ? i : group.from[static_cast<size_t>(i)];
    scales.push_back(std::exp2(float((at * 7 + 3) % 17) / 4.0f - 2.0f));
  }
  return scales;
}

mx::array
folded_logits(const Model& model, const mx::array& tokens, mx::Dtype dtype) {
  auto tables = load_embedding_and_head(model, dtype);
  auto x = embed(tables, tokens);
  const auto brought = token_inputs(tables, tokens, x, dtype);
  ForwardContext context{.dtype = dtype};
  for (const BlockSpec& block : model.spec.blocks) {
    auto weights = load_block(model, block.index, dtype);
    for (const ScaleGroup& group : list_scale_groups(block)) {
      auto scales = foldable_scales(group, some_scales(group), weights);
      fold_scales(group, scales, weights);
    }
    for (auto& [path, linear] : weights.linears) {
      linear.dense = mx::astype(*linear.dense, dtype);
    }
    x = run_block(block, weights, read_by(block, x, brought), context);
    std::cout << list_scale_groups(block).size() << " scale groups\n";
  }
  auto normal = final_norm(model.spec, tables, x, dtype);
  return head_tile(tables, normal, 0, static_cast<int>(model.spec.vocab));
}

int run(char** args) {
  auto model = open_model(args[1]);
  int batch = std::stoi(args[3]);
  int length = std::stoi(args[4]);
  std::vector<int32_t> ids(static_cast<size_t>(batch) * length);
  std::ifstream in(args[2], std::ios::binary);
  in.read(
      reinterpret_cast<char*>(ids.data()),
      static_cast<std::streamsize>(ids.size() * sizeof(int32_t)));
  mx::array tokens(ids.begin(), {batch, length}, mx::int32);
  auto dtype = dtype_of(args[6], model);
  const std::string way = args[7];
  auto result = way == "cached" ? cached_logits(model, tokens, dtype)
      : way == "folded"         ? folded_logits(model, tokens, dtype)
                                : testing::logits(model, tokens, dtype);
  result = mx::contiguous(mx::astype(result, mx::float32));
  mx::eval(result);
  std::ofstream out(args[5], std::ios::binary);
  out.write(
      reinterpret_cast<const char*>(result.data<float>()),
      static_cast<std::streamsize>(result.nbytes()));
  for (const auto& note : model.spec.notes) {
    std::cout << note << "\n";
  }
  return out.good() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    std::cerr << "probe_model FOLDER TOKENS BATCH LENGTH OUT DTYPE MODE\n";
    return 2;
  }
  try {
    return run(argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
