#include "core/json.h"

#include <gtest/gtest.h>

#include <cmath>
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
        std::string(" \n"),
        std::string(R"({"a": NaNa})"),
        std::string(R"({"a": -NaN})"),
        std::string(R"({"a": nan})"),
        std::string(R"({NaN: 1})"),
        std::string(R"({"a": 01e999})"),
        std::string(R"({"a": Infinitely})"),
        std::string("{\"a\": \"\xff\"}"),
        deep,
        std::string(100000, '[')}) {
    EXPECT_EQ(code_of([&] { parse_json(text, "x.json"); }), ErrorCode::corrupt)
        << text.substr(0, 30);
  }
}

// As Python's json.loads (3.11).
TEST(Json, NumbersThatJsonHasNotAreTakenAsPythonTakesThem) {
  auto json = parse_json(
      R"({"a": NaN, "b": [Infinity, -Infinity], "c": 1e999, "d": -1E+999,
          "s": "NaN, -Infinity \" NaN", "t": "\\", "u": 1e308, "v": -0.5e-3})",
      "x.json");
  EXPECT_TRUE(std::isnan(json["a"].get<double>()));
  EXPECT_EQ(json["b"][0], INFINITY);
  EXPECT_EQ(json["b"][1], -INFINITY);
  EXPECT_EQ(json["c"], INFINITY);
  EXPECT_EQ(json["d"], -INFINITY);
  EXPECT_EQ(json["s"], "NaN, -Infinity \" NaN");
  EXPECT_EQ(json["t"], "\\");
  EXPECT_EQ(json["u"], 1e308);
  EXPECT_EQ(json["v"], -0.5e-3);
  EXPECT_EQ(
      parse_json("1" + std::string(400, '0'), "x.json").get<double>(),
      INFINITY);
  EXPECT_TRUE(is_python_json("[NaN]"));
  EXPECT_FALSE(is_python_json("[NaN"));
  EXPECT_FALSE(is_python_json("\xEF\xBB\xBF{}")) << "Python refuses the mark";
  EXPECT_EQ(
      code_of([&] { JsonView(json, "x.json").number("a"); }),
      ErrorCode::corrupt);
}

TEST(Json, TheLastOfRepeatedKeysCounts) {
  EXPECT_EQ(
      parse_json(R"({"a": {"x": 1}, "b": 2, "a": 3})", "x.json").dump(),
      R"({"a":3,"b":2})");
}

TEST(Json, AByteOrderMarkIsPassedOver) {
  EXPECT_EQ(parse_json("\xEF\xBB\xBF{\"a\": 1}", "x.json")["a"], 1);
}

// mlx_lm/utils.py, _decode_tagged_floats and _encode_tagged_floats.
TEST(Json, FloatsAreTaggedAsInMlxLm) {
  auto json = parse_json(
      R"({"a": {"__float__": "-Infinity"}, "b": [{"__float__": "NaN"}],
          "c": {"__float__": "x"}, "d": {"__float__": "NaN", "e": 1}})",
      "x.json");
  auto plain = untag_floats(json);
  EXPECT_EQ(plain["a"], -INFINITY);
  EXPECT_TRUE(std::isnan(plain["b"][0].get<double>()));
  EXPECT_EQ(plain["c"], json["c"]);
  EXPECT_EQ(plain["d"], json["d"]);
  EXPECT_EQ(tag_floats(plain), json);
}

// Reported, for example, in https://github.com/microsoft/OmniParser/issues/34,
// https://github.com/huggingface/tokenizers/issues/1506 and
// https://github.com/minimaxir/gpt-2-simple/issues/263
TEST(Json, WhatStandsInAFilesPlaceIsCalledThat) {
  const std::pair<const char*, const char*> cases[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
       "git lfs pull"},
      {"<!DOCTYPE html>\n<html></html>", "HTML"},
      {"\n<?xml version=\"1.0\"?><Error/>", "XML"},
      {"404: Not Found", "no such file"},
      {" \n", "is empty"},
  };
  for (const auto& [text, part] : cases) {
    try {
      parse_json(text, "x.json");
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << error.what();
    }
  }
  try {
    parse_json("{\n\"a\": 1,\n}", "x.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("line 3"), std::string::npos)
        << error.what();
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

TEST(Json, TimeGoesWithTheLengthOfAList) {
  // Of a million objects: a walk over the list at each would take hours.
  std::string text = "[{}";
  for (int i = 1; i < 1000000; ++i) {
    text += ",{}";
  }
  EXPECT_EQ(parse_json(text + "]", "a list").size(), 1000000u);
}

}  // namespace
}  // namespace pennyweight
