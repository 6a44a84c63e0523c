#include "text/rows/rows.h"

#include <gtest/gtest.h>

#include "core/json.h"
#include "support/expect_error.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {
namespace {

using testing::expect_error;
namespace fs = std::filesystem;
using testing::TempFolder;

Json chat_of(const std::string& json) {
  Row row = to_row(parse_json(json, "test"), "test");
  EXPECT_TRUE(row.text.empty());
  return row.messages;
}

std::vector<std::string> texts_of(const fs::path& path) {
  std::vector<std::string> texts;
  read_rows(path, [&](Row row) {
    texts.push_back(row.messages.is_null() ? row.text : row.messages.dump());
    return true;
  });
  return texts;
}

Json turn(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

TEST(Row, Text) {
  EXPECT_EQ(to_row({{"text", "a"}, {"id", 3}}, "x").text, "a");
  EXPECT_EQ(to_row("plain", "x").text, "plain");
}

TEST(Row, MessagesOfTextOrParts) {
  EXPECT_EQ(
      chat_of(R"({"messages": [{"role": "user", "content": "a"},
          {"role": "assistant", "content": [{"type": "text", "text": "b"},
           "c", {"type": "text", "value": "d"}, {"type": "image"}]}]})"),
      Json::array({turn("user", "a"), turn("assistant", "bcd")}));
  EXPECT_EQ(
      chat_of(R"({"messages": [{"role": "user", "content": null}]})"),
      Json::array({turn("user", "")}));
}

TEST(Row, Conversations) {
  EXPECT_EQ(
      chat_of(R"({"conversations": [{"from": "system", "value": "s"},
          {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})"),
      Json::array(
          {turn("system", "s"), turn("user", "a"), turn("assistant", "b")}));
}

TEST(Row, PromptAndCompletion) {
  Json expected = Json::array({turn("user", "a"), turn("assistant", "b")});
  EXPECT_EQ(chat_of(R"({"prompt": "a", "completion": "b"})"), expected);
  EXPECT_EQ(
      chat_of(R"({"prompt": [{"role": "user", "content": "a"}],
                  "completion": [{"role": "assistant", "content": "b"}]})"),
      expected);
}

TEST(Row, Instruction) {
  EXPECT_EQ(
      chat_of(R"({"instruction": "a", "input": "x", "output": "b"})"),
      Json::array({turn("user", "a\n\nx"), turn("assistant", "b")}));
  EXPECT_EQ(
      chat_of(R"({"instruction": "a", "input": "", "output": "b"})"),
      Json::array({turn("user", "a"), turn("assistant", "b")}));
}

TEST(Row, SaysWhatIsWrong) {
  for (const char* json :
       {"3",
        "{}",
        R"({"txt": "a"})",
        R"({"text": 3})",
        R"({"messages": []})",
        R"({"messages": [{"content": "a"}]})",
        R"({"messages": ["a"]})",
        R"({"messages": [{"role": "user", "content": 3}]})",
        R"({"prompt": "a"})"}) {
    expect_error(ErrorCode::corrupt, "file, row 7", [&] {
      to_row(parse_json(json, "test"), "file, row 7");
    });
  }
}

TEST(ReadRows, JsonLines) {
  TempFolder folder;
  auto file =
      folder.write("a.jsonl", "{\"text\": \"x\"}\r\n\n{\"text\": \"y\\n\"}");
  EXPECT_EQ(texts_of(file), (std::vector<std::string>{"x", "y\n"}));
  file = folder.write("b.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \n");
  expect_error(ErrorCode::corrupt, "b.jsonl, line 3", [&] { texts_of(file); });
}

TEST(ReadRows, Json) {
  TempFolder folder;
  std::vector<std::string> expected = {"x", "y"};
  auto list = R"([{"text": "x"}, {"text": "y"}])";
  EXPECT_EQ(texts_of(folder.write("a.json", list)), expected);
  auto object = std::string(R"({"version": 1, "data": )") + list + "}";
  EXPECT_EQ(texts_of(folder.write("b.JSON", object)), expected);
  EXPECT_EQ(
      texts_of(folder.write("c.json", R"({"text": "x"})")),
      std::vector<std::string>{"x"});
  expect_error(ErrorCode::corrupt, "c.json, row 2", [&] {
    texts_of(folder.write("c.json", R"([{"text": "x"}, 3])"));
  });
  expect_error(ErrorCode::corrupt, "not valid JSON", [&] {
    texts_of(folder.write("c.json", R"([{"text": "x"})"));
  });
}

TEST(ReadRows, GivesRowsThatCannotBeUsedToTheCaller) {
  TempFolder folder;
  std::vector<std::string> left;
  std::vector<std::string> texts;
  auto read = [&](const fs::path& path) {
    left.clear();
    texts.clear();
    read_rows(
        path,
        [&](Row row) {
          texts.push_back(row.text);
          return true;
        },
        [&](const RowError& error) {
          EXPECT_EQ(error.code(), ErrorCode::corrupt);
          left.push_back(
              fs::path(error.where()).filename().string() + ": " +
              error.reason());
        });
  };
  read(folder.write(
      "a.jsonl",
      "{\"text\": \"x\"}\n{\"text\": null}\n\n{broken\n"
      "{\"text\": \"\xFF\"}\n{\"text\": \"y\"}"));
  EXPECT_EQ(texts, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(
      left,
      (std::vector<std::string>{
          "a.jsonl, line 2: with null text",
          "a.jsonl, line 4: that is not valid JSON",
          "a.jsonl, line 5: that is not valid UTF-8"}));
  read(folder.write("b.json", R"([{"text": "x"}, 3, {"text": "y"}])"));
  EXPECT_EQ(texts, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(
      left,
      std::vector<std::string>{
          "b.json, row 2: that is neither an object nor text"});
  // A file as a whole stays an error.
  expect_error(ErrorCode::corrupt, "c.json", [&] {
    read(folder.write("c.json", R"({"name": "x"})"));
  });
  expect_error(ErrorCode::corrupt, "UTF-8 at byte 4", [&] {
    read(folder.write("c.json", "\xEF\xBB\xBF\"\xFF\""));
  });
}

TEST(ReadRows, StopsWhenAsked) {
  TempFolder folder;
  int rows = 0;
  read_rows(
      folder.write("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"y\"}\nbroken"),
      [&](Row) { return ++rows < 2; });
  EXPECT_EQ(rows, 2);
}

TEST(ReadRows, DamagedParquet) {
  TempFolder folder;
  for (std::string text : {"", "PAR1", "PAR1PAR1", "nonsense, no parquet"}) {
    expect_error(ErrorCode::corrupt, "a.parquet", [&] {
      texts_of(folder.write("a.parquet", text));
    });
  }
  std::string absurd =
      "PAR1" + std::string(40, '\xFF') + "\xF0\xFF\xFF\x7F" + "PAR1";
  EXPECT_THROW(texts_of(folder.write("a.parquet", absurd)), Error);
  EXPECT_THROW(texts_of(folder.path() / "none.parquet"), Error);
}

TEST(ReadText, AsPythonReadsIt) {
  TempFolder folder;
  auto file = folder.write(
      "a.txt",
      "\xEF\xBB\xBF"
      "a\r\nb\rc\n\r\n\r");
  EXPECT_EQ(read_text(file), "a\nb\nc\n\n\n");
}

TEST(ReadText, NamesTheBadByte) {
  TempFolder folder;
  auto file = folder.write("a.txt", "abé\xC3(");
  expect_error(ErrorCode::corrupt, "a.txt is not valid UTF-8 at byte 4", [&] {
    read_text(file);
  });
  expect_error(ErrorCode::not_found, "none.txt", [&] {
    read_text(folder.path() / "none.txt");
  });
}

TEST(Utf8, FindsWhatIsInvalid) {
  size_t none = std::string::npos;
  EXPECT_EQ(find_invalid_utf8("aé東😀\xF4\x8F\xBF\xBF"), none);
  // Overlong, surrogate, past U+10FFFF, cut short, lone continuation.
  for (const char* bad :
       {"\xC0\x80",
        "\xE0\x80\x80",
        "\xF0\x80\x80\x80",
        "\xED\xA0\x80",
        "\xF4\x90\x80\x80",
        "\xF8\x88\x80\x80",
        "\xE6\x9D",
        "\x80"}) {
    EXPECT_EQ(find_invalid_utf8(std::string("ab") + bad), 2u);
  }
}

}  // namespace
}  // namespace pennyweight
