#include "text/stream_encoder.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "text/byte_file.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;
using testing::write_tiny_tokenizer;

/// The text in pieces of random sizes, none of which cuts a character.
std::vector<int32_t> streamed(
    const Tokenizer& tokenizer,
    std::string_view text,
    int64_t* forced = nullptr) {
  std::vector<int32_t> ids;
  StreamEncoder encoder(tokenizer, [&](std::span<const int32_t> more) {
    ids.insert(ids.end(), more.begin(), more.end());
  });
  std::mt19937 random(7);
  while (!text.empty()) {
    const size_t wanted = 1 + random() % 500000;
    auto piece = text.substr(0, wanted);
    if (piece.size() < text.size()) {
      piece.remove_suffix(cut_character(piece));
    }
    if (piece.empty()) {
      piece = text.substr(0, 4);
    }
    encoder.add(piece);
    text.remove_prefix(piece.size());
  }
  encoder.end();
  if (forced) {
    *forced = encoder.forced_cuts();
  }
  return ids;
}

/// Words, lines, numbers, blanks, CJK and emoji, `bytes` of them.
std::string mixed_text(size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  const char* const parts[] = {
      "the ", "ab",     " quantized", "\n",     "\n\n", "    ",
      "\t",   "12345 ", "天気",       "は",     "😀",    "👩‍👩‍👧",
      "é",    "don't ", "...",        "()[]{}", "_x",   "ABC ",
      "s",    "  \n "};
  std::string text;
  while (text.size() < bytes) {
    text += parts[random() % std::size(parts)];
  }
  return text;
}

std::vector<fs::path> tokenizer_folders() {
  std::vector<fs::path> folders{
      fs::path(PENNYWEIGHT_SOURCE_DIR) / "assets/demo"};
  // Other tokenizers, where the machine has them.
  if (const char* more = std::getenv("PENNYWEIGHT_MODELS")) {
    for (const auto& entry : fs::directory_iterator(more)) {
      if (fs::exists(entry.path() / "tokenizer.json")) {
        folders.push_back(entry.path());
      }
    }
  }
  return folders;
}

TEST(StreamEncoder, GivesTheTokensOfTheWholeText) {
  for (const auto& folder : tokenizer_folders()) {
    const auto tokenizer = Tokenizer::load(folder);
    for (const size_t bytes : {size_t{1}, size_t{300000}, size_t{900000}}) {
      const auto text = mixed_text(bytes, static_cast<unsigned>(bytes));
      int64_t forced = -1;
      EXPECT_EQ(streamed(tokenizer, text, &forced), tokenizer.encode(text))
          << folder << " " << bytes;
      EXPECT_EQ(forced, 0);
    }
  }
}

TEST(StreamEncoder, PutsSpecialTokensAroundTheWhole) {
  TempFolder folder;
  write_tiny_tokenizer(folder);
  const auto tokenizer = Tokenizer::load(folder.path());
  const auto text = mixed_text(700000, 3);
  const auto ids = streamed(tokenizer, text);
  EXPECT_EQ(ids, tokenizer.encode(text));
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 0), 1);
}

TEST(StreamEncoder, LongWordsAreNotCut) {
  TempFolder folder;
  write_tiny_tokenizer(folder);
  const auto tokenizer = Tokenizer::load(folder.path());
  for (const char* unit : {"ab", "a", " ", "天"}) {
    std::string text = "x ";
    while (text.size() < 600000) {
      text += unit;
    }
    text += " end";
    EXPECT_EQ(streamed(tokenizer, text), tokenizer.encode(text)) << unit;
  }
}

TEST(StreamEncoder, BeginsAnewAfterAText) {
  TempFolder folder;
  write_tiny_tokenizer(folder);
  const auto tokenizer = Tokenizer::load(folder.path());
  std::vector<int32_t> ids;
  StreamEncoder encoder(tokenizer, [&](std::span<const int32_t> more) {
    ids.insert(ids.end(), more.begin(), more.end());
  });
  const auto text = mixed_text(400000, 4);
  encoder.add(text);
  encoder.end();
  const size_t first = ids.size();
  encoder.add("ab");
  encoder.end();
  EXPECT_EQ(
      std::vector<int32_t>(
          ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end()),
      tokenizer.encode("ab"));
}

}  // namespace
}  // namespace pennyweight
