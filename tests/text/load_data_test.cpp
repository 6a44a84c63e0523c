#include "text/load_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "support/expect_error.h"
#include "text/text_reader.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {
namespace {

using testing::expect_error;
namespace fs = std::filesystem;
using testing::TempFolder;
using testing::write_tiny_tokenizer;

const char* const kTemplate =
    "{% for m in messages %}{% if m.role == 'odd' %}"
    "{{ raise_exception('no odd roles') }}{% endif %}"
    "<{{ m.content }}>{% endfor %}";

class LoadData : public ::testing::Test {
 protected:
  LoadData() {
    // Not the user's cache.
    setenv("HOME", folder_.path().c_str(), 1);
  }

  static TextReader reader(const std::string& chat_template = kTemplate) {
    TempFolder folder;
    write_tiny_tokenizer(folder, chat_template);
    return TextReader(folder.path());
  }

  TokenData load(
      const fs::path& path,
      int length = 4,
      int samples = -1,
      const std::string& chat_template = kTemplate) {
    LoadDataOptions options;
    options.data_path = path.string();
    options.sequence_length = length;
    options.num_samples = samples;
    options.seed = seed_;
    auto by = reader(chat_template);
    return load_data(by, options, self_, fetch_);
  }

  TempFolder folder_;
  SampleSelfFn self_;
  FetchDatasetFn fetch_;
  uint64_t seed_ = 123;
};

std::vector<std::vector<int32_t>> sorted(const TokenData& data) {
  auto sequences = data.sequences;
  std::sort(sequences.begin(), sequences.end());
  return sequences;
}

/// Ids of text without merges.
std::vector<int32_t> ids(std::string_view text) {
  std::vector<int32_t> result;
  for (unsigned char c : text) {
    result.push_back(3 + c);
  }
  return result;
}

/// One sequence of a text after <s>.
std::vector<std::vector<int32_t>> ids_of(std::string_view text) {
  auto sequence = ids(text);
  sequence.insert(sequence.begin(), 0);
  return {sequence};
}

TEST_F(LoadData, CutsText) {
  auto file = folder_.write("a.txt", "xyzXYZuvw..");
  auto data = load(file);
  std::vector<std::vector<int32_t>> expected = {
      {0, 3 + 'x', 3 + 'y', 3 + 'z'}, ids("XYZu"), ids("vw..")};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(sorted(data), expected);
  EXPECT_EQ(data.tokens, 12);
  EXPECT_EQ(data.sources, 1);
  EXPECT_EQ(data.sequence_length, 4);
  EXPECT_EQ(data.source, file.string());
  EXPECT_TRUE(data.warnings.empty());
  EXPECT_TRUE(data.masks.empty());
  EXPECT_EQ(load(file, 5).tokens, 10);
}

TEST_F(LoadData, ChoosesBySeed) {
  std::string text;
  for (int i = 0; i < 200; ++i) {
    text += "line " + std::to_string(i) + "\n";
  }
  auto file = folder_.write("a.md", text);
  auto first = load(file, 8, 5).sequences;
  EXPECT_EQ(first.size(), 5u);
  EXPECT_EQ(load(file, 8, 5).sequences, first);
  seed_ = 124;
  EXPECT_NE(load(file, 8, 5).sequences, first);
}

TEST_F(LoadData, FolderDoesNotSpanFiles) {
  folder_.write("d/b/2.txt", "UVWXYZU");
  folder_.write("d/1.txt", "uvwxyz");
  folder_.write("d/.hidden", "\xFF");
  folder_.write("d/.git/x", "\xFF");
  folder_.write("d/rows.jsonl", "{\"text\": \"123\"}\n{\"text\": \"45678\"}\n");
  auto data = load(folder_.path() / "d");
  std::vector<std::vector<int32_t>> expected = {
      {0, 3 + 'u', 3 + 'v', 3 + 'w'},
      {0, 3 + 'U', 3 + 'V', 3 + 'W'},
      ids("XYZU"),
      {0, 3 + '1', 3 + '2', 3 + '3'},
      {0, 3 + '4', 3 + '5', 3 + '6'}};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(sorted(data), expected);
  EXPECT_EQ(data.sources, 4);
}

TEST_F(LoadData, RendersAndTruncatesChats) {
  auto file = folder_.write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "xyzuvw"}]})"
      "\n"
      R"({"prompt": "x", "completion": "y"})"
      "\n"
      R"({"messages": [{"role": "odd", "content": "x"}]})");
  auto data = load(file, 7);
  std::vector<std::vector<int32_t>> expected = {ids("<xyzuvw"), ids("<x><y>")};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(sorted(data), expected);
  EXPECT_EQ(data.sources, 2);
  EXPECT_EQ(data.tokens, 13);
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_NE(data.warnings[0].find("no odd roles"), std::string::npos);
}

TEST_F(LoadData, SaysWhenNoChatIsAccepted) {
  auto file = folder_.write(
      "a.jsonl", R"({"messages": [{"role": "odd", "content": "x"}]})");
  expect_error(
      ErrorCode::invalid_argument, "no odd roles", [&] { load(file); });
}

TEST_F(LoadData, WritesChatsPlainlyWithoutATemplate) {
  auto file = folder_.write("a.json", R"([{"prompt": "x", "completion": ""}])");
  auto data = load(file, 99, -1, "");
  std::vector<int32_t> expected = {0};
  auto rest = ids("user: x\nassistant: \n");
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_EQ(data.sequences, (std::vector<std::vector<int32_t>>{expected}));
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_NE(data.warnings[0].find("no chat template"), std::string::npos);
}

TEST_F(LoadData, ComplainsOfTooLittle) {
  auto file = folder_.write("a.txt", "xyzuvwx");
  auto data = load(file, 4, 3);
  EXPECT_EQ(data.sequences.size(), 2u);
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_NE(data.warnings[0].find("only 2 of the 3"), std::string::npos);
  expect_error(ErrorCode::invalid_argument, "holds only 8 tokens", [&] {
    load(file, 9);
  });
  expect_error(ErrorCode::invalid_argument, "holds no text", [&] {
    load(folder_.write("b.txt", ""));
  });
  fs::create_directories(folder_.path() / "empty");
  expect_error(ErrorCode::invalid_argument, "holds no text", [&] {
    load(folder_.path() / "empty");
  });
}

TEST_F(LoadData, RefusesWhatItCannotRead) {
  expect_error(ErrorCode::not_found, "does not exist", [&] {
    load(folder_.path() / "none.txt");
  });
  expect_error(
      ErrorCode::not_found, "does not exist", [&] { load("data/none.jsonl"); });
  expect_error(ErrorCode::corrupt, "UTF-8 at byte 1", [&] {
    load(folder_.write("a.txt", "a\xFF"));
  });
  expect_error(ErrorCode::invalid_argument, "--sequence-length", [&] {
    load(folder_.write("a.txt", "a"), 1);
  });
  expect_error(ErrorCode::invalid_argument, "--num-samples", [&] {
    load(folder_.write("a.txt", "a"), 4, 0);
  });
}

TEST_F(LoadData, FetchesDataSets) {
  expect_error(
      ErrorCode::not_supported, "hub data sets", [&] { load("org/name"); });
  fetch_ = [&](const std::string& id) { return folder_.path() / "hub" / id; };
  folder_.write("hub/org/name/README.md", "no data");
  folder_.write("hub/org/name/data/train.jsonl", R"({"text": "xyz"})");
  folder_.write("hub/org/name/data/test.jsonl", R"({"text": "uvw"})");
  auto data = load("org/name");
  EXPECT_EQ(
      data.sequences,
      (std::vector<std::vector<int32_t>>{{0, 3 + 'x', 3 + 'y', 3 + 'z'}}));
  EXPECT_EQ(data.source, "data set org/name");
  EXPECT_EQ(data.warnings.size(), 1u);
}

TEST_F(LoadData, ReadsACloneAsItsDataSet) {
  fetch_ = [&](const std::string&) { return folder_.path() / "clone"; };
  folder_.write("clone/.git/HEAD", "ref");
  folder_.write("clone/.gitattributes", "*.parquet filter=lfs");
  folder_.write("clone/README.md", "---\nlicense: mit\n---\n");
  folder_.write("clone/load.py", "print()");
  folder_.write("clone/data/train-00000-of-00001.jsonl", R"({"text": "xyz"})");
  folder_.write("clone/data/test-00000-of-00001.jsonl", R"({"text": "uvw"})");
  auto data = load(folder_.path() / "clone");
  auto by_id = load("org/name");
  EXPECT_EQ(data.sequences, ids_of("xyz"));
  EXPECT_EQ(data.sequences, by_id.sequences);
  EXPECT_EQ(data.warnings, by_id.warnings);
  ASSERT_EQ(data.warnings.size(), 2u);
  EXPECT_NE(data.warnings[0].find("training split"), std::string::npos);
  EXPECT_NE(data.warnings[1].find("load.py"), std::string::npos);
  EXPECT_EQ(to_json(data.use), to_json(by_id.use));
}

TEST_F(LoadData, WeighsWhatIsLeftOut) {
  DataUse use;
  use.rows = 2;
  use.leave_row("broken", "a, line 1");
  use.leave_row("broken", "a, line 2", "why");
  for (int i = 0; i < 9; ++i) {
    use.leave_row(kEmptyText, "a, line 7");
  }
  require_half(use, "a");
  EXPECT_EQ(
      use.warnings(),
      std::vector<std::string>{
          "left out 11 of 13 rows: 2 broken (a, line 1; a, line 2: why), 9 "
          "with empty text (a, line 7; a, line 7; a, line 7; and more)"});
  DataUse other;
  other.leave_row("other", "b, line 1");
  use.add(other);
  expect_error(ErrorCode::corrupt, "1 other (b, line 1)", [&] {
    require_half(use, "a");
  });
  use.lines = 1;  // of plain text beside the rows
  require_half(use, "a");
  DataUse refused;
  refused.leave_row(kRefusedChat, "c, line 1");
  expect_error(ErrorCode::invalid_argument, "c, line 1", [&] {
    require_half(refused, "c");
  });
  EXPECT_TRUE(DataUse().warnings().empty());
}

TEST_F(LoadData, SamplesFromTheModel) {
  expect_error(ErrorCode::not_supported, "--data-path", [&] { load("self"); });
  self_ = [](int count, int length, uint64_t seed) {
    EXPECT_EQ(seed, 123u);
    return std::vector<std::vector<int32_t>>(
        static_cast<size_t>(count),
        std::vector<int32_t>(static_cast<size_t>(length), 7));
  };
  auto data = load("self", 6, 3);
  EXPECT_EQ(data.sequences.size(), 3u);
  EXPECT_EQ(data.tokens, 18);
  EXPECT_EQ(data.sources, 3);
  EXPECT_NE(data.source.find("self"), std::string::npos);
}

TEST_F(LoadData, WithoutAPathTakesTheDefaultTextElseItself) {
  EXPECT_THROW(load(""), Error);
  self_ = [](int count, int length, uint64_t) {
    return std::vector<std::vector<int32_t>>(
        static_cast<size_t>(count),
        std::vector<int32_t>(static_cast<size_t>(length), 7));
  };
  auto data = load("", 4, 2);
  EXPECT_NE(data.source.find("self"), std::string::npos);
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_NE(data.warnings[0].find("sampled from the model"), std::string::npos);

  folder_.write(".cache/mlx-lm/calibration_v5.txt", "xyzuvwxyz");
  data = load("", 4, 2);
  EXPECT_NE(data.source.find("calibration_v5"), std::string::npos);
  EXPECT_EQ(data.sequences.size(), 2u);
  EXPECT_EQ(data.warnings.size(), 1u);
}

TEST_F(LoadData, ReportsAndCancels) {
  auto file = folder_.write("a.txt", "xyzuvwx");
  LoadDataOptions options;
  options.data_path = file.string();
  options.sequence_length = 4;
  options.num_samples = 9;
  int warnings = 0;
  auto by = reader();
  load_data(by, options, {}, {}, [&](const ProgressEvent& event) {
    warnings += event.warning ? 1 : 0;
    return true;
  });
  EXPECT_EQ(warnings, 1);
  expect_error(ErrorCode::cancelled, "stopped", [&] {
    load_data(by, options, {}, {}, [](const ProgressEvent&) { return false; });
  });
}

}  // namespace
}  // namespace pennyweight
