#include "core/json.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"

namespace pennyweight {
namespace {

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.code();
  }
  ADD_FAILURE() << "no Error was thrown";
  return ErrorCode::cancelled;
}

TEST(Json, KeepsTheOrderOfKeys) {
  auto json = parse_json(R"({"b": 1, "a": 2})", "x.json");
  EXPECT_EQ(json.dump(), R"({"b":1,"a":2})");
}

TEST(Json, RefusesWhatIsDamagedOrHostile) {
  std::string deep = std::string(100, '[') + std::string(100, ']');
  for (std::string text :
       {std::string(""),
        std::string("{"),
        std::string(R"({"a": 1} x)"),
        std::string(R"({"a": 1, "a": 2})"),
        std::string("{\"a\": \"\xff\"}"),
        deep,
        std::string(100000, '[')}) {
    EXPECT_EQ(code_of([&] { parse_json(text, "x.json"); }), ErrorCode::corrupt)
        << text.substr(0, 30);
  }
}

TEST(Json, DepthLimitAllowsWhatConfigsHold) {
  std::string deep = std::string(60, '[') + std::string(60, ']');
  EXPECT_NO_THROW(parse_json(deep, "x.json"));
}

// Each key of an ordered object costs a walk past those before it.
TEST(Json, AMillionKeysEndSoon) {
  std::string text = "{";
  for (int i = 0; i < 1000000; ++i) {
    text += (i ? ",\"" : "\"") + std::to_string(i) + "\":0";
  }
  text += "}";
  EXPECT_EQ(code_of([&] { parse_json(text, "x.json"); }), ErrorCode::corrupt);
  EXPECT_EQ(parse_sorted_json(text, "x.json").size(), 1000000u);
}

TEST(JsonView, ChecksTypesAndRanges) {
  Json json = parse_json(
      R"({"n": 3, "real": 2.5, "whole": 4096.0, "s": "x", "null": null,
          "big": 99999999999999999999, "huge": 1e300})",
      "c.json");
  JsonView view(json, "c.json");
  EXPECT_EQ(view.integer("n", 0, 10), 3);
  EXPECT_EQ(view.integer("whole", 0, 10000), 4096);
  EXPECT_EQ(view.integer_or("null", 7, 0, 10), 7);
  EXPECT_FALSE(view.has("null"));
  for (const char* key : {"real", "s", "big", "huge", "absent"}) {
    EXPECT_EQ(
        code_of([&] { view.integer(key, 0, 1 << 30); }), ErrorCode::corrupt)
        << key;
  }
  EXPECT_EQ(code_of([&] { view.integer("n", 4, 9); }), ErrorCode::corrupt);
  EXPECT_EQ(code_of([&] { view.boolean_or("n", true); }), ErrorCode::corrupt);
  EXPECT_EQ(code_of([&] { view.object("n"); }), ErrorCode::corrupt);
}

TEST(JsonView, NamesFileAndKey) {
  Json json = parse_json(R"({"n": "x"})", "c.json");
  try {
    JsonView(json, "dir/c.json").integer("n", 0, 10);
    FAIL();
  } catch (const Error& error) {
    std::string what = error.what();
    EXPECT_NE(what.find("dir/c.json"), std::string::npos);
    EXPECT_NE(what.find("\"n\""), std::string::npos);
  }
}

}  // namespace
}  // namespace pennyweight
