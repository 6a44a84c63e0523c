#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "core/options.h"
#include "method/block_method.h"
#include "method/plan_modules.h"

namespace pennyweight {

/// The options of a method's own command, and what follows from them. Beside
/// them every such command has those of run/walk_options.h: model, output,
/// text, limits.
class MethodSettings {
 public:
  virtual ~MethodSettings() = default;

  virtual void visit(const OptionSink& option) = 0;
  /// invalid_argument Error, naming the flag, for values out of range.
  virtual void check() const {}
  /// Which modules are quantized, and how. Not asked as a stage of `quantize`,
  /// which chooses widths itself.
  virtual QuantPlan plan(const Model& model) const = 0;
  /// Whether it rounds to all modes, or to affine widths alone.
  virtual bool knows_all_modes() const {
    return false;
  }
  /// Whether some of the text is kept out of the statistics, to judge by.
  virtual bool holds_text_out() const {
    return true;
  }
  /// Whether embedding and head are fitted to the text as well.
  virtual bool fits_embedding() const {
    return true;
  }
  /// Begins the model card's sentence: "GPTQ at 4 bits".
  virtual std::string title() const = 0;
  /// `held_out`: whether there is text to judge by. Null `inner`: the method by
  /// itself; else after, or around, this one.
  virtual std::shared_ptr<BlockMethod> make(
      bool held_out,
      std::shared_ptr<BlockMethod> inner = nullptr) const = 0;
};

/// A method of the registry: a command of its own, and a stage of `quantize`.
struct MethodEntry {
  std::string name;      // of command and stage
  std::string title;     // its name in a sentence: "GPTQ"
  std::string summary;   // one line for --help
  std::string examples;  // lines, shown under --help
  /// Sequences of text, unless the user says otherwise; -1: all.
  int num_samples = -1;
  /// Its options, defaults in place.
  std::function<std::unique_ptr<MethodSettings>()> settings;
};

/// One width for all of a model's modules.
struct WidthOptions {
  int bits = 4;
  int group_size = 64;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "bits", .help = "Bits a weight: 2, 3, 4, 5, 6 or 8"},
        self.bits);
    option(
        {.name = "group-size", .help = "Weights a group: 32, 64 or 128"},
        self.group_size);
  }
};

namespace detail {

template <class Method, class Options>
class WidthSettings : public MethodSettings {
 public:
  explicit WidthSettings(std::string title) : title_(std::move(title)) {}

  void visit(const OptionSink& option) override {
    visit_options(widths_, option);
    visit_options(own_, option);
  }
  QuantPlan plan(const Model& model) const override {
    const auto spec =
        make_quant_spec("affine", widths_.bits, widths_.group_size);
    return plan_modules(model, spec, spec, spec);
  }
  std::string title() const override {
    return title_ + " at " + std::to_string(widths_.bits) + " bits";
  }
  std::shared_ptr<BlockMethod> make(bool, std::shared_ptr<BlockMethod>)
      const override {
    return std::make_shared<Method>(own_);
  }

 private:
  std::string title_;
  WidthOptions widths_;
  Options own_;
};

}  // namespace detail

/// The entry of a method whose command takes WidthOptions and `Options`, of
/// which Method is made. `title`: the method's name in a sentence.
template <class Method, class Options>
MethodEntry block_method(
    const std::string& name,
    const std::string& title,
    const std::string& summary) {
  return {
      .name = name,
      .title = title,
      .summary = summary,
      .examples =
          "  pennyweight " + name + " --model Qwen/Qwen3-0.6B --mlx-path out\n",
      .settings = [title] {
        return std::make_unique<detail::WidthSettings<Method, Options>>(title);
      }};
}

}  // namespace pennyweight
