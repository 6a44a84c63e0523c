#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "method/dwq/optimizer.h"
#include "model/embedding_and_head.h"
#include "model/model.h"
#include "model/weights.h"
#include "pass/model_part.h"

namespace pennyweight {

/// The quantized model that dwq trains: what this process holds of it, packed,
/// with the scales and biases of each module that is trained as masters.
class Student {
 public:
  /// The model must outlive this. numeric Error for scales or biases that are
  /// not finite.
  Student(const Model& model, const ModelPart& part);

  const Model& model() const {
    return model_;
  }
  bool trains(const std::string& path) const {
    return groups_.contains(path);
  }
  /// Modules trained, the parts of a stack each, of all processes together, by
  /// path.
  const std::vector<std::string>& trained() const {
    return trained_;
  }
  /// Scales and biases that are trained, of all processes.
  int64_t parameters() const;

  /// Of a block of this part, as trained so far: packed, or dense but for
  /// experts that are not trained.
  BlockWeights block(int index) const;
  BlockWeights expanded_block(int index, std::vector<std::string>& trained)
      const;
  /// Embedding, final norm and head, as trained so far.
  EmbeddingAndHead tables() const;
  ops::QuantizedWeight weight(const std::string& path) const {
    return groups_.at(path).weight();
  }

  /// sum of a step's gradients += these. They are kept by group only.
  void add(const std::string& path, const ops::GroupGradients& gradients);
  /// The same of the rows from `first` on, and of the rows of tokens [n].
  void add_rows(
      const std::string& path,
      int first,
      const ops::GroupGradients& gradients);
  void add_at(
      const std::string& path,
      const mx::array& tokens,
      const ops::GroupGradients& gradients);
  /// Sums the step's gradients over all processes; their norm.
  double reduce();
  /// Takes one step of Adam by the summed gradients, and clears them. step.rate
  /// is the rate of a module whose scales have the mean size; another module's
  /// rate grows with its scales, since a rounding there costs as much more.
  void update(const AdamStep& step);
  /// The mean over all trained groups of |scale| at the start.
  double unit() const {
    return unit_;
  }
  void reset();

  /// Masters and moments of all modules, each by a name, given to the first
  /// process one module at a time; and back, on each.
  using SaveFn =
      std::function<void(const std::string& name, const mx::array& value)>;
  void save(const SaveFn& take) const;
  void restore(const std::map<std::string, mx::array>& state);
  /// Scales and biases as the output will have them, by tensor name, in
  /// memory of their own: of all modules on the first process, of its own
  /// modules on others.
  std::map<std::string, mx::array> result() const;

 private:
  void find_units();
  mx::Shape groups_of(const std::string& path) const;
  bool owns(const std::string& path) const;
  /// What the owning process has of `value`, on the first process.
  mx::array gathered(
      const std::string& path,
      const std::function<mx::array(const TrainedGroups&)>& value) const;
  void expand(const std::string& path, LinearWeights& linear) const;
  ops::GroupGradients& sums_of(const std::string& path);

  const Model& model_;
  ModelPart part_;
  std::map<int, BlockWeights> blocks_;
  std::optional<EmbeddingAndHead> tables_;
  std::vector<std::string> trained_;
  std::map<std::string, ModuleSpec> modules_;  // trained
  std::set<std::string> experts_;  // paths; they stay packed if not trained
  std::map<std::string, TrainedGroups> groups_;
  std::map<std::string, double> units_;
  double unit_ = 0;
  std::map<std::string, ops::GroupGradients> sums_;
};

}  // namespace pennyweight
