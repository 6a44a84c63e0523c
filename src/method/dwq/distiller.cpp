#include "method/dwq/distiller.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>

#include "core/error.h"
#include "model/gradients.h"
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
    throw Error(
        ErrorCode::numeric,
        "dwq",
        "the student's divergence from the full model is not finite; check "
        "both with `pennyweight evaluate`");
  }
  return value;
}

size_t Distiller::slot(int block, size_t chunk) const {
  return chunk * static_cast<size_t>(part_.end - part_.first) +
      static_cast<size_t>(block - part_.first);
}

mx::array Distiller::forward(
    const TokenBatch& batch,
    ActivationStore* kept,
    size_t chunk) const {
  const auto& model = student_.model();
  auto x = part_.embeds
      ? embed(*outer_, batch.tokens)
      : part_.receive(
            batch.tokens, student_.model().spec.hidden, part_.previous());
  for (int b = part_.first; b < part_.end; ++b) {
    if (kept) {
      kept->put(slot(b, chunk), x);
    }
    x = run_block(
        model.spec.blocks[static_cast<size_t>(b)],
        student_.block(b),
        x,
        context_);
    mx::eval(x);
  }
  if (!part_.heads) {
    part_.ranks->send(x, part_.next());
  }
  return x;
}

Distiller::Slope Distiller::through_head(
    const TokenBatch& batch,
    const Targets& targets,
    size_t target,
    const mx::array& x,
    const ops::KlOptions& options,
    bool gradients) {
  const auto& spec = student_.model().spec;
  const auto& path = spec.head ? spec.head->path : spec.embedding;
  const auto rows = [&](const std::vector<mx::array>& in) {
    return std::vector<mx::array>{
        pick_tokens(batch, final_norm(spec, *outer_, in[0], context_.dtype))};
  };
  const auto head = outer_->head.head(rows({x})[0], outer_->logit_cap);
  Slope result;
  if (!gradients) {
    const auto kl = ops::kl_loss(head, targets.of(target), options);
    result.loss = static_cast<double>(mx::sum(kl).item<float>());
    return result;
  }
  const auto add_tile = [&](int first, int count, const mx::array& dense) {
    student_.add_rows(
        path,
        first,
        ops::group_gradients(*outer_->head.rows(first, count).packed, dense));
  };
  const auto kl = ops::kl_head(
      head,
      targets.of(target),
      options,
      student_.trains(path) ? ops::TileGradientFn(add_tile) : nullptr);
  auto sum = mx::sum(kl.loss);
  result.by_x =
      mx::vjp(rows, {x}, {mx::astype(kl.dx, context_.dtype)}).second[0];
  mx::eval({*result.by_x, sum});
  result.loss = static_cast<double>(sum.item<float>());
  return result;
}

mx::array Distiller::through_block(
    int block,
    const ActivationStore& kept,
    size_t chunk,
    const mx::array& dy) {
  std::vector<std::string> trained;
  const auto weights = student_.expanded_block(block, trained);
  auto gradients = block_gradients(
      student_.model().spec.blocks[static_cast<size_t>(block)],
      weights,
      trained,
      kept.get(slot(block, chunk)),
      dy,
      context_);
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
  for (const auto& [path, own] : groups) {
    student_.add(path, own);
  }
  return gradients.x;
}

// Each token's row has the slope of where it stood.
void Distiller::through_embedding(
    const TokenBatch& batch,
    const mx::array& slope) {
  const auto& path = student_.model().spec.embedding;
  if (!student_.trains(path)) {
    return;
  }
  const auto tokens = mx::contiguous(mx::flatten(batch.tokens));
  const auto slopes = mx::multiply(
      mx::flatten(slope, 0, 1), mx::array(outer_->embedding_scale));
  student_.add_at(
      path,
      tokens,
      ops::group_gradients(outer_->embedding.packed_at(tokens), slopes));
}

double Distiller::gradients(
    std::span<const DistillChunk> chunks,
    const Targets& targets,
    size_t first,
    double temperature) {
  if (part_.embeds || part_.heads) {
    outer_.reset();
    outer_ = student_.outer();
  }
  const auto tokens = static_cast<double>(count_tokens(chunks));
  const ops::KlOptions options{
      .temperature = static_cast<float>(temperature),
      .factor = static_cast<float>(1 / tokens)};
  ActivationStore kept(
      chunks.size() * static_cast<size_t>(part_.end - part_.first),
      budget_,
      folder_);
  ActivationStore slopes(chunks.size(), budget_, folder_);
  double sum = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto x = forward(chunks[i].tokens, &kept, i);
    if (part_.heads) {
      const auto slope =
          through_head(chunks[i].tokens, targets, first + i, x, options, true);
      slopes.put(i, *slope.by_x);
      sum += slope.loss;
    }
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto& batch = chunks[i].tokens;
    auto slope = part_.heads
        ? slopes.get(i)
        : part_.receive(
              batch.tokens, student_.model().spec.hidden, part_.next());
    for (int b = part_.end; b-- > part_.first;) {
      slope = through_block(b, kept, i, slope);
    }
    if (part_.embeds) {
      through_embedding(batch, slope);
    } else {
      part_.ranks->send(slope, part_.previous());
    }
  }
  return mean(sum, tokens);
}

double Distiller::measure(
    std::span<const DistillChunk> chunks,
    const Targets& targets) {
  if (part_.embeds || part_.heads) {
    outer_.reset();
    outer_ = student_.outer();
  }
  const ops::KlOptions options;
  double sum = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto x = forward(chunks[i].tokens, nullptr, i);
    if (part_.heads) {
      sum += through_head(chunks[i].tokens, targets, i, x, options, false).loss;
    }
  }
  return mean(sum, static_cast<double>(count_tokens(chunks)));
}

}  // namespace pennyweight
