#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "model/activation_range.h"
#include "model/model.h"
#include "ops/ops.h"

namespace pennyweight {

/// What a linear read in a forward pass, and the gradient of the loss by its
/// output.
struct LinearTrace {
  std::optional<mx::array> x;   // [..., in]
  std::optional<mx::array> dy;  // [..., out]
  /// For a stack of experts, whose rows stand in one matrix: the expert of each
  /// row, uint32 [rows].
  std::optional<mx::array> expert;
};

/// Gives y, which a linear made of x. Once mx::vjp has gone back through it,
/// the trace, where there is one, holds x and the gradient by y; or, with
/// `turned`, each in the other's place, for a weight that was used transposed.
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
  ActivationRange* range = nullptr;  // sees the outputs, see watch_range()
  std::string place{};               // by which `range` names them

  /// The output [..., out] for x [..., in], in `out_dtype` or else in x's type.
  mx::array operator()(
      const mx::array& x,
      std::optional<mx::Dtype> out_dtype = std::nullopt) const;
  /// residual [..., out] plus the output for x, in the type of residual.
  mx::array add_to(const mx::array& residual, const mx::array& x) const;
  /// Rows first .. first + count - 1 (output channels), without a copy.
  LinearWeights rows(int first, int count) const;
};

/// The weights of one block, by module path: methods replace entries.
struct BlockWeights {
  std::map<std::string, LinearWeights> linears;
  /// Norm weights by module path, and their biases by path + ".bias".
  std::map<std::string, mx::array> norms;
  std::map<std::string, mx::array> parameters;  // by name, float32
  ActivationRange* range = nullptr;             // see watch_range()

  /// Shows x to `range`, where there is one.
  void see(const std::string& place, const mx::array& x) const {
    if (range) {
      range->see(place, x);
    }
  }
};

/// Whether a packed module stays packed and is expanded in each call, or is
/// expanded once when it is loaded, for many calls over the same block. What
/// its publisher packed (Model::published_packed), and stacks in modes other
/// than affine, stay packed either way: they are most of their model, and no
/// method changes them.
enum class PackedWeights { keep, expand };

/// Loads the module at `path`, or where that is a stack, its matrix `part`.
/// Lazy: what is dense and already in `dtype` is a view of the mapped file.
LinearWeights load_linear(
    const Model& model,
    const std::string& path,
    mx::Dtype dtype,
    PackedWeights packed = PackedWeights::keep,
    int64_t part = -1);
/// Loads all weights of a block, likewise lazily; parameters as float32.
BlockWeights load_block(
    const Model& model,
    int block,
    mx::Dtype dtype,
    PackedWeights packed = PackedWeights::keep);

/// Loads a float tensor, or its entry `part` along the first axis, and casts it
/// to `to` where it has another type.
mx::array load_as(
    const Model& model,
    const std::string& name,
    mx::Dtype to,
    int64_t part = -1);

}  // namespace pennyweight
