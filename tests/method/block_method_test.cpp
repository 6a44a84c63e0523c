#include "method/block_method.h"

#include <gtest/gtest.h>

#include "method/fake_block.h"

namespace pennyweight {

namespace {

using testing::FakeBlock;

TEST(BlockFigures, GoThroughJson) {
  const BlockFigures figures{
      .kept = "all",
      .held_out_error = {{"all", 0.5}, {kRtn, 0.75}},
      .details = {{"folds", true}},
      .warnings = {"clamped"}};
  const auto back = block_figures_from_json(to_json(figures));
  EXPECT_EQ(back.kept, "all");
  EXPECT_EQ(back.held_out_error, figures.held_out_error);
  EXPECT_EQ(back.details, figures.details);
  EXPECT_EQ(back.warnings, figures.warnings);
  EXPECT_EQ(back.error(), 0.5);
}

TEST(BlockFigures, HaveNoErrorWhereNoneWasMeasured) {
  EXPECT_EQ(BlockFigures{}.error(), std::nullopt);
  EXPECT_EQ((BlockFigures{.kept = "all"}).error(), std::nullopt);
  const auto back = block_figures_from_json(to_json(BlockFigures{}));
  EXPECT_EQ(back.kept, "");
  EXPECT_TRUE(back.held_out_error.empty());
}

TEST(JudgedError, IsOfHeldOutTextWhereThereIsSome) {
  FakeBlock block;
  block.held_out = 0.25;
  block.fit = 0.5;
  EXPECT_EQ(judged_error(block, {}), 0.25);
  block.held_out.reset();
  EXPECT_EQ(judged_error(block, {}), 0.5);
}

TEST(SetAll, SetsEachLinear) {
  FakeBlock block;
  const ops::QuantizedWeight weight{
      mx::zeros({1}), mx::zeros({1}), std::nullopt, 64, 4, "affine"};
  set_all(block, {{"a", weight}, {"b", weight}});
  EXPECT_EQ(block.packed().size(), 2u);
}

}  // namespace

}  // namespace pennyweight
