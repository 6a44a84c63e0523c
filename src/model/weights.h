#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "model/activation_range.h"
#include "model/model.h"
#include "ops/ops.h"

namespace pennyweight {

/// Of a run that is differentiated: what a linear read and the gradient by
/// what it made of it, rows [..., in] and [..., out].
struct LinearTrace {
  std::optional<mx::array> x;
  std::optional<mx::array> dy;
  /// Of a stack of experts, whose rows are one after the other: of which
  /// expert each is, uint32 [rows].
  std::optional<mx::array> expert;
};

/// y, which a linear made of x. Once mx::vjp has gone back through it, the
/// trace, where there is one, holds x and the gradient by y; `turned`, the
/// other way round, where the weight was used transposed.
mx::array watched(
    const std::shared_ptr<LinearTrace>& trace,
    const mx::array& x,
    const mx::array& y,
    bool turned = false);

/// A linear's weights: dense [out, in], or packed.
struct LinearWeights {
  std::optional<mx::array> dense;
  std::optional<ops::QuantizedWeight> packed;
  std::optional<mx::array> bias;
  std::shared_ptr<LinearTrace> trace = nullptr;
  ActivationRange* range = nullptr;  // sees what the linear makes
  std::string place{};               // and calls it so

  /// x [..., in] to [..., out] in `out_dtype`, x's own when not given.
  mx::array operator()(
      const mx::array& x,
      std::optional<mx::Dtype> out_dtype = std::nullopt) const;
  /// residual [..., out] plus what the linear makes of x, in residual's type.
  mx::array add_to(const mx::array& residual, const mx::array& x) const;
  /// Rows first .. first + count - 1 (output channels), without a copy.
  LinearWeights rows(int first, int count) const;
};

/// The weights of one block, by module path: methods replace entries.
struct BlockWeights {
  std::map<std::string, LinearWeights> linears;
  std::map<std::string, mx::array> norms;  // weight; bias by path + ".bias"
  std::map<std::string, mx::array> parameters;  // by name
  /// See watch_range().
  ActivationRange* range = nullptr;

  void see(const std::string& place, const mx::array& x) const {
    if (range) {
      range->see(place, x);
    }
  }
};

/// A packed module either stays packed and is expanded in each call, or is
/// expanded once when loaded, for many calls over the same block. What its
/// publisher packed (Model::published_packed), and an output's stacks of that
/// kind, are never expanded: they are most of their model, and only multiplied.
enum class PackedWeights { keep, expand };

/// Loads one module or block lazily: what is dense and already in `dtype` is
/// a view of the mapped file.
/// `path` is a module's, of which `part` is taken where it is a stack.
LinearWeights load_linear(
    const Model& model,
    const std::string& path,
    mx::Dtype dtype,
    PackedWeights packed = PackedWeights::keep,
    int64_t part = -1);
BlockWeights load_block(
    const Model& model,
    int block,
    mx::Dtype dtype,
    PackedWeights packed = PackedWeights::keep);

/// A float tensor's cast to `to` where that is another type.
mx::array load_as(
    const Model& model,
    const std::string& name,
    mx::Dtype to,
    int64_t part = -1);

}  // namespace pennyweight
