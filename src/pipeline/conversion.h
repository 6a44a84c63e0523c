#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "export/model_writer.h"
#include "model/model.h"
#include "pipeline/convert.h"

namespace pennyweight {

/// What convert makes of each tensor of a model: planned for all first (the
/// writer wants every shape), then done one tensor at a time in the same
/// order.
class Conversion {
 public:
  /// invalid_argument for options that contradict the model. Both must
  /// outlive this.
  Conversion(const Model& model, const ConvertOptions& options);

  /// What is written, in the order of the source's names.
  const std::vector<TensorPlan>& tensors() const {
    return tensors_;
  }
  /// Absent when nothing is to be quantized.
  const std::optional<QuantPlan>& plan() const {
    return plan_;
  }
  /// What all floats are cast to; absent: each as stored.
  std::optional<mx::Dtype> dtype() const {
    return dtype_;
  }
  /// The output's config.json.
  Json config() const;

  /// Writes what becomes of one tensor of the source: none to three tensors.
  /// numeric Error for values that are not finite, before or after the cast.
  void run(const std::string& name, ModelWriter& writer) const;

 private:
  void choose_dtype();
  void choose_plan();
  void plan_tensor(const std::string& name, const TensorInfo& info);
  void plan_expanded(const std::string& module, const TensorInfo& info);

  bool expands(const std::string& module) const;
  const QuantSpec* spec_of(const std::string& name) const;
  mx::Dtype cast(mx::Dtype stored) const;
  mx::array load_cast(const std::string& name) const;
  mx::array expand(const std::string& module) const;
  Json quantization() const;

  const Model& model_;
  const ConvertOptions& options_;
  std::set<std::string> dropped_;
  std::optional<mx::Dtype> dtype_;
  std::optional<QuantPlan> plan_;
  std::vector<TensorPlan> tensors_;
};

/// "float32", "bfloat16" or "float16".
std::string float_name(mx::Dtype dtype);

}  // namespace pennyweight
