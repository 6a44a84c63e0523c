#include "method/gptq/table_fit.h"
#include "method/packed_block.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "method/gptq/gptq.h"
#include "method/pack_result.h"
#include "model/decoder.h"
#include "ops/evaluated.h"
#include "ops/primitive.h"
#include "ops/rounding/packed_rows.h"
#include "pass/floats.h"
#include "pass/model_pass.h"

namespace pennyweight {

namespace {

constexpr double kHeadDamp = 0.01;

/// Sum of x x^T over what the head reads, through the whole model.
std::vector<float> head_gram(
    const Model& model,
    const std::vector<TokenBatch>& batches,
    const ProcessGroup& ranks,
    const std::string& name,
    const ProgressFn& progress) {
  auto tables = load_embedding_and_head(model, model.dtype);
  auto all = MemoryBudget::unlimited();
  ModelPass pass(model, batches, {.dtype = model.dtype}, all);
  pass.embed(&tables);
  const auto blocks = static_cast<int64_t>(model.spec.blocks.size());
  pass.forward([&](const BlockSpec& block) {
    report(progress, {name, block.index, blocks, "blocks ahead"});
    return pass.load(block);
  });
  const int hidden = static_cast<int>(model.spec.hidden);
  auto sum = mx::zeros({hidden, hidden});
  for (size_t i = 0; i < batches.size(); ++i) {
    const auto rows = pass.head_rows(tables, i);
    sum = ops::gram_add(sum, {rows}, rows);
    mx::eval(sum);
  }
  return to_vector(ranks.sum(sum));
}

std::vector<float> identity(int64_t size) {
  std::vector<float> matrix(size_t(size * size), 0.0f);
  for (int64_t i = 0; i < size; ++i) {
    matrix[size_t(i * (size + 1))] = 1.0f;
  }
  return matrix;
}

GptqOptions damped(GptqOptions options, const ModuleSpec& module) {
  options.damp = module.tied ? kTiedShare : kHeadDamp;
  return options;
}

}  // namespace

bool is_head(const ModuleSpec& module) {
  return module.tied || module.kind == ModuleSpec::Kind::head;
}

TableRounding::TableRounding(
    const Model& model,
    const ModuleSpec& module,
    std::vector<float> gram,
    const GptqOptions& options)
    : model_(model),
      module_(module),
      options_(damped(options, module)),
      hessian_(
          is_head(module) ? std::move(gram) : identity(module.in),
          module.in,
          options_) {}

TableRounding::Rounded TableRounding::round(const QuantSpec& spec) const {
  const VocabTable table(model_, module_.path, model_.dtype);
  PackedRows packed(table.vocab());
  double nearest = 0;
  double loss = 0;
  each_rows(table.vocab(), [&](int first, int count) {
    const auto stored =
        finite_dense(table.dense_rows(first, count), module_.path);
    auto dense = evaluated(mx::contiguous(mx::astype(stored, mx::float32)));
    auto result = gptq_quantize(
        dense.data<float>(),
        count,
        hessian_,
        spec,
        ops::kernel_type(model_.dtype),
        options_);
    nearest += result.figures.loss_nearest;
    loss += result.figures.loss;
    packed.put(first, pack_result(result, spec, model_.dtype));
  });
  return {packed.take(), nearest > 0 ? loss / nearest : 1.0};
}

TableFit fit_tables(
    const Model& model,
    const QuantPlan& plan,
    const std::vector<TokenBatch>& batches,
    const ProcessGroup& ranks,
    const std::string& name,
    const ProgressFn& progress) {
  TableFit fit;
  std::vector<float> gram;
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    const auto& spec = plan.at(module.path).spec;
    if (module.block >= 0 || !spec) {
      continue;
    }
    if (is_head(module) && gram.empty()) {
      gram = head_gram(model, batches, ranks, name, progress);
    }
    try {
      const TableRounding rounding(model, module, gram, {});
      auto rounded = rounding.round(*spec);
      fit.packed.emplace(module.path, std::move(rounded.weight));
      fit.figures[module.path] = {{"loss_share", rounded.loss_share}};
    } catch (const Error& error) {
      throw about(name, module.path, error);
    }
  }
  return fit;
}

}  // namespace pennyweight
