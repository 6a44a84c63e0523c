#include <gtest/gtest.h>

#include <random>

#include "core/json.h"
#include "support/expect_error.h"
#include "text/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::TempFolder;
using testing::tiny_tokenizer_json;

/// Loads and uses what `json` says; an Error is fine, a crash is not.
bool survives(const TempFolder& folder, std::string_view json) {
  folder.write("tokenizer.json", json);
  try {
    auto tokenizer = Tokenizer::load(folder.path());
    auto ids = tokenizer.encode("ab cab</s> é 12 \xF0\x9F\x98\x80");
    tokenizer.decode(ids);
    tokenizer.decode(ids, true);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void expect_corrupt(const Json& json) {
  TempFolder folder;
  folder.write("tokenizer.json", json.dump());
  expect_error(ErrorCode::corrupt, "tokenizer.json", [&] {
    Tokenizer::load(folder.path());
  });
}

TEST(HostileTokenizer, CutShort) {
  TempFolder folder;
  std::string json = tiny_tokenizer_json().dump();
  EXPECT_TRUE(survives(folder, json));
  for (size_t size = 0; size < json.size(); size += 37) {
    EXPECT_FALSE(survives(folder, std::string_view(json).substr(0, size)));
  }
}

TEST(HostileTokenizer, BitsFlipped) {
  TempFolder folder;
  std::string json = tiny_tokenizer_json().dump();
  std::mt19937 random(1);
  int failed = 0;
  for (int i = 0; i < 600; ++i) {
    std::string damaged = json;
    for (int flips = 1 + i % 3; flips > 0; --flips) {
      damaged[random() % json.size()] ^=
          static_cast<char>(1u << (random() % 8));
    }
    failed += survives(folder, damaged) ? 0 : 1;
  }
  EXPECT_GT(failed, 50);
}

TEST(HostileTokenizer, ValuesReplaced) {
  TempFolder folder;
  Json whole = tiny_tokenizer_json();
  Json flat = whole.flatten();
  std::vector<Json> odd = {
      nullptr,
      -1,
      4294967295u,
      1e300,
      "",
      "x",
      true,
      Json::array(),
      Json::object()};
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    auto it = flat.begin();
    // Half of them outside the vocabulary, which is most of the file.
    do {
      it = std::next(flat.begin(), static_cast<long>(random() % flat.size()));
    } while (i % 2 == 0 && it.key().starts_with("/model/vocab"));
    Json damaged = whole;
    damaged[Json::json_pointer(it.key())] = odd[random() % odd.size()];
    survives(folder, damaged.dump());
  }
}

TEST(HostileTokenizer, DeepNesting) {
  TempFolder folder;
  for (const char* open : {"[", "{\"a\":", "{\"model\":["}) {
    std::string json;
    for (int i = 0; i < 200000; ++i) {
      json += open;
    }
    EXPECT_FALSE(survives(folder, json));
  }
}

TEST(HostileTokenizer, AbsurdIds) {
  for (Json id : {Json(4294967295u), Json(-1), Json(1.5), Json("7")}) {
    Json json = tiny_tokenizer_json();
    json["model"]["vocab"]["ab"] = id;
    expect_corrupt(json);
    json = tiny_tokenizer_json();
    json["added_tokens"][0]["id"] = id;
    expect_corrupt(json);
  }
}

TEST(HostileTokenizer, MergesOfNothing) {
  Json json = tiny_tokenizer_json();
  json["model"]["merges"] = Json::array({"a zz"});
  expect_corrupt(json);
  json["model"]["merges"] = Json::array({"a"});
  expect_corrupt(json);
}

TEST(HostileTokenizer, WrongShape) {
  expect_corrupt(Json::array());
  expect_corrupt(Json::object());
  expect_corrupt({{"model", nullptr}});
  expect_corrupt({{"model", {{"type", "Nonsense"}}}});
}

TEST(HostileTokenizer, BacktrackingPattern) {
  TempFolder folder;
  Json json = tiny_tokenizer_json();
  Json split = {
      {"type", "Split"},
      {"pattern", {{"Regex", "(?=(a+)+$)(a|aa)+$"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers", Json::array({split, json["pre_tokenizer"]})}};
  folder.write("tokenizer.json", json.dump());
  auto tokenizer = Tokenizer::load(folder.path());
  try {
    tokenizer.encode(std::string(60, 'a') + "b");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
  }
}

TEST(HostileTokenizer, DamagedConfig) {
  TempFolder folder;
  for (const char* text :
       {"",
        "[]",
        "{\"bos_token\"",
        R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"99999999999": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"1": 7}})"}) {
    testing::write_tiny_tokenizer(folder);
    folder.write("tokenizer_config.json", text);
    expect_error(ErrorCode::corrupt, "tokenizer_config.json", [&] {
      Tokenizer::load(folder.path());
    });
  }
}

}  // namespace
}  // namespace pennyweight
