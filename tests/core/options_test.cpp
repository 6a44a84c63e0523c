#include "core/options.h"

#include <gtest/gtest.h>

#include "core/json.h"

namespace pennyweight {
namespace {

struct Sample {
  int bits = 4;
  bool force = false;
  std::optional<double> damp;
  std::string mode = "affine";

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option({.name = "bits", .help = "Bits"}, self.bits);
    option(
        {.name = "force", .help = "Force", .affects_result = false},
        self.force);
    option({.name = "damp", .help = "Damping"}, self.damp);
    option({.name = "mode", .help = "Mode"}, self.mode);
  }
};

TEST(Options, GoThroughJsonAndBack) {
  Sample sample{3, true, 0.5, "mxfp4"};
  Json json = options_to_json(sample);
  Sample back;
  options_from_json(back, json, "recipe.json");
  EXPECT_EQ(options_to_json(back), json);
  EXPECT_EQ(*back.damp, 0.5);
}

TEST(Options, TheFingerprintLeavesOutWhatCantMatter) {
  Sample one;
  Sample two;
  two.force = true;
  EXPECT_EQ(options_to_json(one, true), options_to_json(two, true));
  two.bits = 2;
  EXPECT_NE(options_to_json(one, true), options_to_json(two, true));
}

TEST(Options, AWrongTypeIsNamed) {
  Sample sample;
  Json json = Json::parse(R"({"bits": "four"})");
  try {
    options_from_json(sample, json, "recipe.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
    EXPECT_NE(std::string(error.what()).find("bits"), std::string::npos);
  }
}

}  // namespace
}  // namespace pennyweight
