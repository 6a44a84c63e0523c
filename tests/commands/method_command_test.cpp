#include "commands/method_command.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/json.h"
#include "ops/rounding/quantize.h"
#include "run/session.h"
#include "support/run_command.h"
#include "support/tiny_model.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {

namespace {

struct NoOptions {
  template <class Self, class Visitor>
  static void visit(Self&, Visitor&&) {}
};

/// A method that has one way to make a block, and so names none and measures
/// none; or that measures one and never rounding to nearest.
template <bool kMeasures>
class OneWay : public BlockMethod {
 public:
  explicit OneWay(const NoOptions&) {}
  std::string name() const override {
    return "one-way";
  }
  MethodNeeds needs() const override {
    return {.restarts = true};
  }
  int64_t working_bytes(const BlockSpec&) const override {
    return 0;
  }
  BlockFigures run(BlockTask& task) override {
    for (const LinearGroup& group : task.groups()) {
      for (const ModuleSpec& module : group.modules) {
        task.set(
            module.path,
            quantize(task.weight(module.path), task.quant_spec(module)));
      }
    }
    if (!kMeasures) {
      return {};
    }
    return {.kept = "own", .held_out_error = {{"own", 0.25}}};
  }
};

template <bool kMeasures>
Json run_method(std::string& text) {
  testing::TemporaryFolder folder;
  fs::create_directories(folder.path() / "model");
  testing::write_checkpoint(
      folder.path() / "model",
      testing::tiny_config(),
      testing::random_tensors(testing::tiny_config()));
  std::ofstream(folder.path() / "model/tokenizer.json")
      << testing::tiny_tokenizer_json().dump();
  auto entry = block_method<OneWay<kMeasures>, NoOptions>(
      "one-way", "One way", "Has one way to make a block");
  return testing::run_command(
      method_command(entry),
      {{"model", (folder.path() / "model").string()},
       {"mlx-path", (folder.path() / "out").string()},
       {"data-path", "self"},
       {"num-samples", 8},
       {"sequence-length", 16},
       {"group-size", 32}},
      &text);
}

TEST(MethodCommand, AMethodNeedsNoWaysToCompare) {
  std::string text;
  const auto report = run_method<false>(text);
  EXPECT_EQ(report["blocks"].size(), 2u);
  EXPECT_FALSE(report["blocks"][0].contains("kept"));
  EXPECT_EQ(text.find("kept"), std::string::npos);
  EXPECT_GT(report["bytes"].get<int64_t>(), 0);
}

TEST(MethodCommand, AMethodNeedNotMeasureRoundingToNearest) {
  std::string text;
  const auto report = run_method<true>(text);
  EXPECT_EQ(report["blocks"][1]["held_out_error"]["own"], 0.25);
  EXPECT_NE(text.find("own: 2"), std::string::npos) << text;
  EXPECT_NE(text.find("25.000%"), std::string::npos) << text;
  EXPECT_EQ(text.find(kRtn), std::string::npos) << text;
}

}  // namespace

}  // namespace pennyweight
