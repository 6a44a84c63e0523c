#include "method/dwq/targets.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>

#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "core/error.h"
#include "core/text.h"
#include "method/packed_block.h"
#include "model/decoder.h"
#include "ops/evaluated.h"
#include "pass/model_pass.h"

namespace pennyweight {

namespace {

constexpr int kTopLogits = 1024;

[[noreturn]] void refuse(const fs::path& file, const std::string& what) {
  throw corrupt_error(
      "dwq",
      file.string() + " " + what +
          "; give the flags and data that it was made with, or another "
          "--target-dir");
}

std::vector<size_t> all_rows(const DistillBatch& batch) {
  std::vector<size_t> rows(batch.sequences.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = i;
  }
  return rows;
}

bool same(const mx::array& a, const mx::array& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
      mx::array_equal(a, b).item<bool>();
}

void check_target(
    const fs::path& path,
    const std::map<std::string, mx::array>& tensors,
    const DistillSplit& split,
    size_t index) {
  const auto& batch = split.batches[index];
  if (!tensors.contains("logits") || !tensors.contains("indices")) {
    refuse(path, "has no logits and indices");
  }
  const auto& logits = tensors.at("logits");
  const auto& columns = tensors.at("indices");
  if (logits.ndim() != 3 ||
      logits.shape(0) != static_cast<int>(batch.sequences.size()) ||
      logits.shape(1) != batch.positions || logits.shape(2) < 1 ||
      !mx::issubdtype(logits.dtype(), mx::floating)) {
    refuse(path, "is of another batch than this run's");
  }
  if (columns.shape() != logits.shape() || columns.dtype() != mx::uint32) {
    refuse(path, "has indices that are not its logits'");
  }
  auto tokens = tensors.find("tokens");
  if (tokens != tensors.end()) {
    const auto own = token_batch(split.sequences, batch, all_rows(batch));
    if (!same(tokens->second, own.tokens)) {
      refuse(path, "is of other text");
    }
  }
}

}  // namespace

std::vector<DistillChunk> cut_batch(
    const DistillSplit& split,
    size_t batch,
    const ModelPart& part,
    int64_t most) {
  const auto& whole = split.batches[batch];
  const auto count = whole.sequences.size();
  std::vector<size_t> own;
  for (size_t row = 0; row < count; ++row) {
    if (part.takes(row)) {
      own.push_back(row);
    }
  }
  auto step = static_cast<size_t>(
      std::max<int64_t>(1, most / std::max(1, whole.positions)));
  if (part.pipeline) {
    // While one rank is at a chunk the next is at the one before.
    const auto ranks = static_cast<size_t>(part.ranks->size());
    step = std::min(step, std::max<size_t>(1, count / (2 * ranks)));
  }
  std::vector<DistillChunk> chunks;
  for (size_t begin = 0; begin < own.size(); begin += step) {
    const auto end = std::min(own.size(), begin + step);
    std::vector<size_t> rows(
        own.begin() + static_cast<std::ptrdiff_t>(begin),
        own.begin() + static_cast<std::ptrdiff_t>(end));
    auto tokens = token_batch(split.sequences, whole, rows);
    chunks.push_back({&split, batch, std::move(rows), std::move(tokens)});
  }
  return chunks;
}

TeacherTargets::TeacherTargets(
    const Model& model,
    const ModelPart& part,
    int64_t activation_bytes,
    fs::path folder)
    : model_(model),
      part_(part),
      budget_{activation_bytes},
      folder_(std::move(folder)) {
  if (part.embeds || part.heads) {
    tables_ = load_embedding_and_head(model, model.dtype);
    tables_->rounded = true;
    require_finite(model, *tables_);
  }
}

void TeacherTargets::prepare(const std::vector<DistillChunk>& chunks) {
  rows_.reset();
  std::vector<TokenBatch> batches;
  for (const auto& chunk : chunks) {
    batches.push_back(chunk.tokens);
  }
  ModelPass pass(
      model_,
      std::move(batches),
      {.dtype = model_.dtype, .scratch_folder = folder_, .part = part_},
      budget_);
  pass.embed(tables_ ? &*tables_ : nullptr);
  pass.forward();
  if (!part_.heads) {
    return;
  }
  rows_ = std::make_unique<ActivationStore>(chunks.size(), budget_, folder_);
  for (size_t i = 0; i < chunks.size(); ++i) {
    rows_->put(i, pass.head_rows(*tables_, i));
  }
}

Targets::Rows TeacherTargets::of(size_t i) const {
  return tables_->head.head(rows_->get(i), tables_->logit_cap);
}

fs::path
target_file(const fs::path& folder, const std::string& split, size_t batch) {
  return folder / split / formatted("%010zu.safetensors", batch);
}

void check_targets(const fs::path& folder, const DistillSplit& split) {
  for (size_t i = 0; i < split.batches.size(); ++i) {
    const auto path = target_file(folder, split.name, i);
    if (!fs::exists(path)) {
      throw not_found_error(
          "dwq",
          path.string() +
              " is missing: the targets are of fewer batches than "
              "this run's; make them with its flags and data");
    }
    check_target(path, load_safetensors(path), split, i);
  }
  const auto beyond = target_file(folder, split.name, split.batches.size());
  if (fs::exists(beyond)) {
    refuse(beyond, "is one batch more than this run has");
  }
}

void write_targets(
    const Model& teacher,
    const ModelPart& part,
    const DistillSplit& split,
    const fs::path& folder,
    int64_t activation_bytes,
    const ProgressFn& progress) {
  std::error_code failed;
  fs::create_directories(folder / split.name, failed);
  if (failed) {
    throw io_error(
        "dwq", "can't create", (folder / split.name).string(), failed.value());
  }
  const int count =
      std::min<int>(kTopLogits, static_cast<int>(teacher.spec.vocab));
  // Blocks are read once for some batches.
  constexpr size_t kWave = 16;
  std::vector<size_t> wanted;
  for (size_t i = 0; i < split.batches.size(); ++i) {
    if (part.takes(i) && !fs::exists(target_file(folder, split.name, i))) {
      wanted.push_back(i);
    }
  }
  TeacherTargets source(teacher, part, activation_bytes, folder);
  for (size_t begin = 0; begin < wanted.size(); begin += kWave) {
    report(
        progress,
        {"dwq",
         static_cast<int64_t>(begin),
         static_cast<int64_t>(wanted.size()),
         "batches",
         ""});
    std::vector<DistillChunk> chunks;
    const size_t end = std::min(wanted.size(), begin + kWave);
    for (size_t i = begin; i < end; ++i) {
      const auto& batch = split.batches[wanted[i]];
      auto tokens = token_batch(split.sequences, batch, all_rows(batch));
      tokens.picks.reset();  // padding too, as mlx_lm has it
      chunks.push_back({&split, wanted[i], all_rows(batch), tokens});
    }
    source.prepare(chunks);
    for (size_t i = 0; part.heads && i < chunks.size(); ++i) {
      const auto& tokens = chunks[i].tokens.tokens;
      const auto top = ops::top_logits(
          std::get<ops::Head>(source.of(i)), count, teacher.dtype);
      const mx::Shape shape{tokens.shape(0), tokens.shape(1), count};
      write_safetensors(
          target_file(folder, split.name, chunks[i].batch),
          {{"logits", mx::reshape(top.values, shape)},
           {"indices", mx::reshape(top.columns, shape)},
           {"tokens", tokens}});
    }
  }
  part.ranks->barrier();
}

void StoredTargets::prepare(const std::vector<DistillChunk>& chunks) {
  chunks_ = chunks;
}

Targets::Rows StoredTargets::of(size_t i) const {
  const auto& chunk = chunks_[i];
  const auto path = target_file(folder_, chunk.split->name, chunk.batch);
  auto tensors = load_safetensors(path);
  check_target(path, tensors, *chunk.split, chunk.batch);
  std::vector<int32_t> rows(chunk.rows.begin(), chunk.rows.end());
  const mx::array taken(
      rows.data(), {static_cast<int>(rows.size())}, mx::int32);
  const auto of_rows = [&](const char* name) {
    return evaluated(
        pick_tokens(chunk.tokens, mx::take(tensors.at(name), taken, 0)));
  };
  ops::TopLogits top{of_rows("logits"), of_rows("indices")};
  if (!mx::all(mx::isfinite(top.values)).item<bool>()) {
    refuse(path, "holds logits that are not finite");
  }
  if (top.columns.size() > 0 &&
      mx::max(top.columns).item<uint32_t>() >= vocab_) {
    refuse(path, "names logits outside the vocabulary");
  }
  return top;
}

}  // namespace pennyweight
