#include <gtest/gtest.h>

#include <random>

#include "core/json.h"
#include "support/expect_error.h"
#include "text/byte_file.h"
#include "text/rows/json_scan.h"
#include "text/rows/rows.h"
#include "text/spilled_list.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TempFolder;

struct Read {
  std::vector<std::string> texts;
  std::vector<std::string> refused;
};

Read read(const fs::path& path) {
  Read all;
  read_rows(
      path,
      [&](Row row) {
        std::string text = row.text;
        if (row.long_text) {
          row.long_text([&](std::string_view piece) { text += piece; });
        }
        all.texts.push_back(row.messages.is_null() ? text : "chat");
        return true;
      },
      [&](const RowError& error) { all.refused.push_back(error.reason()); });
  return all;
}

/// Text of every kind that JSON escapes.
std::string long_text(size_t bytes) {
  std::string text;
  while (text.size() < bytes) {
    text += "line \"quoted\" \\ tab\t天気😀\x01 end\n";
  }
  return text;
}

std::string row_of(const std::string& text) {
  // As ASCII, so that every escape occurs, pairs of surrogates too.
  return Json{{"id", 1}, {"text", text}, {"x", {1, {2}}}}.dump(-1, ' ', true);
}

TEST(LongRows, OneRowOfManyMegabytes) {
  TempFolder folder;
  const auto text = long_text(kLongRow + 100000);
  const auto lines =
      "\n" + row_of("first") + "\r\n" + row_of(text) + "\n" + row_of("last");
  EXPECT_EQ(
      read(folder.write("a.jsonl", lines)).texts,
      (std::vector<std::string>{"first", text, "last"}));
}

TEST(LongRows, DocumentsOfEveryShape) {
  TempFolder folder;
  const auto text = long_text(1000000);
  std::string list = "[";
  for (int i = 0; i < 12; ++i) {
    list += (i ? ",\n " : "") + row_of(text);
  }
  list += "]";
  const std::vector<std::string> expected(12, text);
  const std::string shapes[] = {
      list,
      "{\"note\": \"x\", \"rows\": " + list + "}",
      "{\"any\": " + list + ", \"n\": [1, 2]}",
      " " + list + " \n"};
  for (const auto& shape : shapes) {
    for (const char* name : {"a.json", "b.jsonl"}) {
      if (shape[0] == '{' && name[0] == 'b') {
        continue;  // one line, an object of over 8 MiB that is no row
      }
      EXPECT_EQ(read(folder.write(name, shape)).texts, expected);
    }
  }
}

TEST(LongRows, WhatCannotBeStreamedIsLeftOutByName) {
  TempFolder folder;
  const auto text = long_text(kLongRow + 1000);
  const Json chat{{"messages", {{{"role", "user"}, {"content", text}}}}};
  const auto lines = chat.dump() + "\n" + row_of("good") + "\n{\"text\": \"" +
      std::string(kLongRow, 'x') + "\n" + "{\"text\": \"" +
      std::string(kLongRow, 'x') + "\xFF\"}\n";
  const auto all = read(folder.write("a.jsonl", lines));
  EXPECT_EQ(all.texts, std::vector<std::string>{"good"});
  EXPECT_EQ(
      all.refused,
      (std::vector<std::string>{
          "of over 8 MiB that is not text alone",
          "that is not valid JSON",
          "that is not valid JSON or UTF-8"}));
}

TEST(LongRows, BrokenDocumentsSayWhere) {
  TempFolder folder;
  std::string list = "[";
  for (int i = 0; i < 12; ++i) {
    list += row_of(long_text(1000000)) + ",";
  }
  expect_error(ErrorCode::corrupt, "broken at byte", [&] {
    read(folder.write("a.json", list));
  });
}

TEST(LongRows, LinesOfShortAndLongFilesAreTheSame) {
  TempFolder folder;
  std::string lines;
  std::mt19937 random(5);
  std::vector<std::string> expected;
  while (lines.size() < kLongRow + 1000) {
    const auto text = long_text(random() % 3000);
    expected.push_back(text);
    lines += row_of(text) + (random() % 2 ? "\r\n" : "\n") +
        (random() % 5 ? "" : "  \n");
  }
  const auto all = read(folder.write("a.jsonl", lines));
  EXPECT_EQ(all.texts.size(), expected.size());
  EXPECT_EQ(all.texts, expected);
}

TEST(TextPieces, AreAsTheWholeText) {
  TempFolder folder;
  std::string raw = "\xEF\xBB\xBF";
  while (raw.size() < 1000000) {
    raw += "ab\r\ncd\re天\r\r\n😀\n";
  }
  raw += "end\r";
  const auto path = folder.write("a.txt", raw);
  const ByteFile file(path);
  require_utf8(file);
  TextPieces pieces(file, 0, file.size());
  std::string text;
  for (std::string piece; pieces.next(piece);) {
    EXPECT_EQ(find_invalid_utf8(piece), std::string::npos);
    text += piece;
  }
  EXPECT_EQ(text, read_text(path));
}

TEST(TextPieces, BrokenTextIsNamedByItsByte) {
  TempFolder folder;
  for (const size_t at :
       {size_t{0}, size_t{262143}, size_t{262144}, size_t{400000}}) {
    std::string raw(500000, 'x');
    raw[at] = '\xE5';
    const ByteFile file(folder.write("a.txt", raw));
    expect_error(
        ErrorCode::corrupt, "at byte " + std::to_string(at) + ";", [&] {
          require_utf8(file);
        });
  }
  const ByteFile cut(folder.write("b.txt", "abc\xE5\xA4"));
  expect_error(ErrorCode::corrupt, "at byte 3;", [&] { require_utf8(cut); });
}

TEST(SpilledList, GivesBackWhatCame) {
  SpilledList<int32_t> list;
  std::vector<int32_t> all(1000000);
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<int32_t>(i * 7);
  }
  list.push(std::span<const int32_t>(all));
  ASSERT_EQ(list.size(), all.size());
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const size_t first = random() % all.size();
    const size_t count = random() % (all.size() - first);
    std::vector<int32_t> out(count);
    list.read(first, out);
    EXPECT_TRUE(std::equal(
        out.begin(),
        out.end(),
        all.begin() + static_cast<std::ptrdiff_t>(first)));
    EXPECT_EQ(list.at(first), all[first]);
  }
}

}  // namespace
}  // namespace pennyweight
