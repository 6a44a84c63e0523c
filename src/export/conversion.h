#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "export/model_writer.h"
#include "export/output_type.h"
#include "format/quant_plan.h"
#include "model/model.h"

namespace pennyweight {

/// The packed weight of a module that the plan quantizes (a stack whole),
/// evaluated and row-contiguous.
using QuantizedSource =
    std::function<ops::QuantizedWeight(const std::string& module)>;

/// What takes the place of a float tensor, in any float type.
using FloatSource =
    std::function<std::optional<mx::array>(const std::string& tensor)>;

struct ConversionSettings {
  /// What floats are cast to, but for those that keep their type, and what
  /// config.json names then; absent: each stays as stored.
  std::optional<mx::Dtype> dtype;
  /// The type of `source`'s scales; absent: that of the weight, once cast.
  std::optional<mx::Dtype> scales_dtype{};
  std::optional<QuantPlan> plan{};  // absent: nothing is quantized
  bool dequantize = false;
  bool mtp = true;  // heads that predict further tokens are carried (mtp.h)
  QuantizedSource source{};  // absent: rounds to nearest
  FloatSource floats{};      // absent: as in the checkpoint
};

/// Weights of one shape and form as one stack, evaluated.
ops::QuantizedWeight stack_packed(
    const std::vector<ops::QuantizedWeight>& parts);

/// What becomes of each tensor of a model: planned for all first (the writer
/// wants every shape), then done one tensor at a time in the same order.
class Conversion {
 public:
  /// The model must outlive this.
  Conversion(const Model& model, ConversionSettings settings);

  /// What is written, in the order of the source's names.
  const std::vector<TensorPlan>& tensors() const {
    return tensors_;
  }
  bool carries_mtp() const {
    return settings_.mtp;
  }
  /// Absent when nothing is to be quantized.
  const std::optional<QuantPlan>& plan() const {
    return settings_.plan;
  }
  /// The output's config.json.
  Json config() const;

  /// Writes what becomes of one tensor of the source: none to three tensors.
  /// numeric Error for values that are not finite, before or after the cast.
  void run(const std::string& name, ModelWriter& writer) const;

 private:
  void plan_tensor(const std::string& name, const TensorInfo& info);
  void plan_expanded(const std::string& module, const TensorInfo& info);

  bool expands(const std::string& module) const;
  const QuantSpec* spec_of(const std::string& name) const;
  mx::Dtype cast(const std::string& name, mx::Dtype stored) const;
  mx::array load_cast(const std::string& name) const;
  void each_piece(
      const std::string& name,
      const std::function<void(int first, const mx::array& rows)>& take) const;
  void each_part(
      const std::string& name,
      const std::function<void(int first, const mx::array& rows)>& take) const;
  mx::array checked_cast(const mx::array& stored, const std::string& name)
      const;
  ops::QuantizedWeight round_to_nearest(
      const std::string& name,
      const QuantSpec& spec) const;
  void expand(const std::string& module, ModelWriter& writer) const;
  Json quantization() const;

  const Model& model_;
  ConversionSettings settings_;
  std::set<std::string> dropped_;
  std::set<std::string> kept_types_;       // what is never cast
  std::map<std::string, int64_t> counts_;  // of a stack's parts, by module
  std::vector<TensorPlan> tensors_;
};

}  // namespace pennyweight
