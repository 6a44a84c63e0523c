#pragma once

#include <mlx/ops.h>

#include <stdexcept>

#include "method/block_method.h"

namespace pennyweight::testing {

/// A block of no linears whose errors are what a test says.
class FakeBlock : public BlockTask {
 public:
  std::optional<double> held_out;  // error; absent: no text is held out
  double fit = 0;

  const BlockSpec& spec() const override {
    return spec_;
  }
  const std::vector<LinearGroup>& groups() const override {
    return groups_;
  }
  const QuantSpec& quant_spec(const ModuleSpec&) const override {
    return quant_;
  }
  mx::array weight(const std::string&) const override {
    return mx::zeros({1, 1});
  }
  mx::Dtype dtype() const override {
    return mx::float32;
  }
  mx::array expand(const ops::QuantizedWeight& weight) const override {
    return weight.scales;
  }
  void set(const std::string& path, const ops::QuantizedWeight& weight)
      override {
    packed_.insert_or_assign(path, weight);
  }
  const PackedBlock& packed() const override {
    return packed_;
  }
  InputStatistics statistics(const LinearGroup&, const StatisticsWanted&)
      override {
    throw std::logic_error("the fake block has no inputs");
  }
  void restart() override {}
  void overlap(const std::function<void()>& work) override {
    work();
  }
  FitText fit_text() const override {
    return {};
  }
  bool has_held_out() const override {
    return held_out.has_value();
  }
  double held_out_error(const DenseBlock&) override {
    return held_out.value();
  }
  double held_out_error() override {
    return held_out.value();
  }
  double fit_error(const DenseBlock&) override {
    return fit;
  }
  BlockGradient gradient(
      const DenseBlock&,
      const std::vector<std::string>&,
      const std::vector<size_t>&) override {
    return {};
  }
  std::map<std::string, Curvature> curvature(
      const DenseBlock&,
      const std::vector<std::string>&,
      const std::vector<size_t>&,
      uint64_t) override {
    return {};
  }
  bool can_fold(const ScaleGroup&) const override {
    return false;
  }
  std::vector<float> foldable(
      const ScaleGroup&,
      const std::vector<float>& scales) const override {
    return scales;
  }
  void fold(const ScaleGroup&, const std::vector<float>&) override {}
  void unfold() override {}

 private:
  BlockSpec spec_;
  std::vector<LinearGroup> groups_;
  QuantSpec quant_;
  PackedBlock packed_;
};

}  // namespace pennyweight::testing
