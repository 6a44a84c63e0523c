#include "run/pins/pin.h"

#include <gtest/gtest.h>

#include <set>

#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

TEST(Pin, IsReadInAllItsForms) {
  PinOptions options;
  options.pin = {"q_proj=6", "lm_head=8:32", "experts=4:32:mxfp4", "a=b=3"};
  options.at_least = {"layers.0.*=5"};
  options.keep = {"router"};
  const auto pins = parse_pins(options, "test");
  ASSERT_EQ(pins.size(), 6u);
  EXPECT_EQ(pins[0].pattern, "q_proj");
  EXPECT_EQ(pins[0].bits, 6);
  EXPECT_FALSE(pins[0].group_size);
  EXPECT_FALSE(pins[0].role);
  EXPECT_EQ(pins[1].group_size, 32);
  EXPECT_EQ(pins[2].mode, "mxfp4");
  EXPECT_EQ(pins[2].role, ModuleSpec::Role::experts);
  EXPECT_EQ(pins[3].pattern, "a=b");  // a path may hold anything
  EXPECT_EQ(pins[4].kind, WidthPin::Kind::at_least);
  EXPECT_EQ(pins[4].said, "--at-least layers.0.*=5");
  EXPECT_EQ(pins[5].kind, WidthPin::Kind::keep);
  EXPECT_EQ(pins[5].role, ModuleSpec::Role::router);
}

TEST(Pin, RolesAreThoseOfTheBlocksParts) {
  const auto roles_of = [](const DecoderSpec& spec) {
    std::map<std::string, std::string> roles;
    for (const auto& module : list_stored_modules(spec)) {
      roles[module.path] = role_name(module.role);
    }
    return roles;
  };
  BlockSpec block;
  block.path = "b";
  block.attention.q.path = "b.q";
  block.attention.k.path = "b.k";
  block.attention.v.path = "b.v";
  block.attention.o.path = "b.o";
  const auto linear = [](const char* path, int64_t count = 0) {
    LinearSpec made;
    made.path = path;
    made.count = count;
    return made;
  };
  block.mlp.emplace();
  block.mlp->gate = linear("b.gate");
  block.mlp->up = linear("b.up");
  block.mlp->down = linear("b.down");
  DecoderSpec spec;
  spec.embedding = "embed";
  spec.head = linear("head");
  spec.blocks = {block};
  spec.blocks[0].parallel = true;  // both branches read one input
  auto roles = roles_of(spec);
  for (const char* path : {"b.q", "b.k", "b.v", "b.o"}) {
    EXPECT_EQ(roles[path], "attention") << path;
  }
  for (const char* path : {"b.gate", "b.up", "b.down"}) {
    EXPECT_EQ(roles[path], "mlp") << path;
  }
  EXPECT_EQ(roles["embed"], "embedding");
  EXPECT_EQ(roles["head"], "head");
  spec.blocks[0].parallel = false;
  MoeSpec moe;
  moe.router = linear("b.router");
  moe.shared_gate = linear("b.shared_gate");
  moe.experts.gate = linear("b.e.gate", 2);
  moe.experts.up = linear("b.e.up", 2);
  moe.experts.down = linear("b.e.down", 2);
  spec.blocks[0].moe = moe;
  roles = roles_of(spec);
  EXPECT_EQ(roles["b.up"], "shared_expert");
  EXPECT_EQ(roles["b.down"], "shared_expert");
  EXPECT_EQ(roles["b.e.gate"], "experts");
  EXPECT_EQ(roles["b.e.down"], "experts");
  EXPECT_EQ(roles["b.router"], "router");
  EXPECT_EQ(roles["b.shared_gate"], "router");
  EXPECT_EQ(roles["b.o"], "attention");
}

}  // namespace
}  // namespace pennyweight
