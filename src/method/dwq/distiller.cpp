#include "method/dwq/distiller.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>

#include "core/error.h"
#include "model/gradients.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"
#include "ops/kl_head.h"

namespace pennyweight {

Distiller::Distiller(
    Student& student,
    const ModelPart& part,
    int64_t activation_bytes,
    fs::path folder)
    : student_(student),
      part_(part),
      budget_{activation_bytes},
      folder_(std::move(folder)),
      context_{.dtype = student.model().dtype} {}

// By blocks each process has the same ones.
int64_t Distiller::count_tokens(std::span<const DistillChunk> chunks) const {
  int64_t count = 0;
  for (const auto& chunk : chunks) {
    count += chunk.tokens.count;
  }
  return part_.pipeline
      ? count
      : static_cast<int64_t>(part_.ranks->sum(static_cast<double>(count)));
}

double Distiller::mean(double sum, double tokens) const {
  const double value = part_.ranks->sum(sum) / tokens;
  if (!std::isfinite(value)) {
    throw numeric_error(
        "dwq",
        "the student's divergence from the full model is not finite; check "
        "both with `pennyweight evaluate`");
  }
  return value;
}

ModelPass Distiller::begin(std::span<const DistillChunk> chunks, bool back) {
  std::vector<TokenBatch> batches;
  for (const auto& chunk : chunks) {
    batches.push_back(chunk.tokens);
  }
  return {
      student_.model(),
      std::move(batches),
      {.dtype = student_.model().dtype,
       .scratch_folder = folder_,
       .keep_inputs = back,
       .part = part_},
      budget_};
}

// A chunk by itself, so that the next process is at it while this one is at the
// next chunk.
void Distiller::forward(ModelPass& pass, size_t chunk) const {
  const BatchRange only{chunk, chunk + 1};
  pass.embed(tables_ ? &*tables_ : nullptr, only);
  pass.forward(
      [&](const BlockSpec& block) { return student_.block(block.index); },
      only);
}

double Distiller::through_head(
    ModelPass& pass,
    size_t chunk,
    const Targets::Rows& target,
    const ops::KlOptions& options) {
  const auto& spec = student_.model().spec;
  const auto& path = spec.head ? spec.head->path : spec.embedding;
  const auto add_tile = [&](int first, int count, const mx::array& dense) {
    student_.add_rows(
        path,
        first,
        ops::group_gradients(*tables_->head.rows(first, count).packed, dense));
  };
  const auto kl = ops::kl_head(
      tables_->head.head(pass.head_rows(*tables_, chunk), tables_->logit_cap),
      target,
      options,
      student_.trains(path) ? ops::TileGradientFn(add_tile) : nullptr);
  pass.head_back(*tables_, chunk, kl.dx);
  return static_cast<double>(mx::sum(kl.loss).item<float>());
}

mx::array Distiller::through_block(
    const BlockSpec& block,
    const mx::array& x,
    const mx::array& dy) {
  std::vector<std::string> trained;
  const auto weights = student_.expanded_block(block.index, trained);
  auto gradients = block_gradients(block, weights, trained, x, dy, context_);
  std::map<std::string, ops::GroupGradients> groups;
  std::vector<mx::array> wanted{gradients.x};
  for (const auto& [path, dense] : gradients.weights) {
    auto& own =
        groups.emplace(path, ops::group_gradients(student_.weight(path), dense))
            .first->second;
    wanted.push_back(own.scales);
    wanted.push_back(own.biases);
  }
  gradients.weights.clear();
  mx::eval(wanted);
  if (block.token_gate) {
    by_blocks_.push_back(mx::contiguous(token_input_of(block, gradients.x)));
    mx::eval(by_blocks_.back());
  }
  for (const auto& [path, own] : groups) {
    student_.add(path, own);
  }
  return gradients.x;
}

mx::array Distiller::through_token_inputs(
    const TokenBatch& batch,
    const std::vector<mx::array>& by_blocks) {
  const auto& token = *tables_->token;
  const auto found = token_gradients(
      *tables_,
      embed(*tables_, batch.tokens),
      mx::concatenate({by_blocks.rbegin(), by_blocks.rend()}, -1),
      context_.dtype);
  const auto& table = token.table.path();
  if (student_.trains(table)) {
    const auto tokens = mx::contiguous(mx::flatten(batch.tokens));
    student_.add_at(
        table,
        tokens,
        ops::group_gradients(token.table.packed_at(tokens), found.rows));
  }
  const auto& projection = token.projection.path();
  if (student_.trains(projection)) {
    student_.add(
        projection,
        ops::group_gradients(student_.weight(projection), found.projection));
  }
  return found.x;
}

// Each token's row has the gradient of where it stood.
void Distiller::through_embedding(
    const TokenBatch& batch,
    const mx::array& gradient) {
  const auto& path = student_.model().spec.embedding;
  if (!student_.trains(path)) {
    return;
  }
  const auto tokens = mx::contiguous(mx::flatten(batch.tokens));
  const auto by_token =
      mx::flatten(gradient, 0, 1) * mx::array(tables_->embedding_scale);
  student_.add_at(
      path,
      tokens,
      ops::group_gradients(tables_->embedding.packed_at(tokens), by_token));
}

void Distiller::read_tables() {
  if (part_.embeds || part_.heads) {
    tables_.reset();
    tables_ = student_.tables();
  }
}

double Distiller::gradients(
    std::span<const DistillChunk> chunks,
    const Targets& targets,
    size_t first,
    double temperature) {
  read_tables();
  const auto tokens = static_cast<double>(count_tokens(chunks));
  const ops::KlOptions options{
      .temperature = static_cast<float>(temperature),
      .factor = static_cast<float>(1 / tokens)};
  auto pass = begin(chunks, true);
  double sum = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    forward(pass, i);
    if (part_.heads) {
      sum += through_head(pass, i, targets.of(first + i), options);
    }
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    const BatchRange only{i, i + 1};
    const auto through = [&](const BlockSpec& block) {
      pass.back(
          block,
          [&](size_t, const mx::array& x, const mx::array& dy) {
            return through_block(block, x, dy);
          },
          only);
    };
    by_blocks_.clear();
    pass.backward(through, only);
    if (part_.embeds) {
      auto gradient = pass.gradient(i);
      if (!by_blocks_.empty()) {
        gradient = mx::add(
            gradient, through_token_inputs(chunks[i].tokens, by_blocks_));
      }
      through_embedding(chunks[i].tokens, gradient);
    }
  }
  return mean(sum, tokens);
}

double Distiller::measure(
    std::span<const DistillChunk> chunks,
    const Targets& targets) {
  read_tables();
  double sum = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    auto pass = begin(chunks.subspan(i, 1), false);
    forward(pass, 0);
    if (part_.heads) {
      const auto kl = ops::kl_loss(
          tables_->head.head(pass.head_rows(*tables_, 0), tables_->logit_cap),
          targets.of(i));
      sum += static_cast<double>(mx::sum(kl).item<float>());
    }
  }
  return mean(sum, static_cast<double>(count_tokens(chunks)));
}

}  // namespace pennyweight
