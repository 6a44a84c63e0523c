#include "text/text_reader.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/json.h"
#include "support/expect_error.h"
#include "text/choose.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::TempFolder;
using testing::tiny_tokenizer_json;
using testing::write_tiny_tokenizer;

const char* const kChats =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"one two\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"three four\"}]}\n";

TokenData read(TextReader& reader, const std::filesystem::path& path) {
  LoadDataOptions options;
  options.data_path = path.string();
  options.sequence_length = 4;
  options.num_samples = -1;
  return load_data(reader, options, {}, {});
}

/// What reading chats by a hostile template says.
void expect_refused(const std::string& chat_template, const std::string& why) {
  TempFolder folder;
  write_tiny_tokenizer(folder, chat_template);
  const auto rows = folder.write("rows.jsonl", kChats);
  TextReader reader(folder.path());
  expect_error(
      ErrorCode::corrupt, "rows.jsonl, line ", [&] { read(reader, rows); });
  expect_error(ErrorCode::corrupt, why, [&] { read(reader, rows); });
}

TEST(TextReader, ReadsAsThisProcessDoes) {
  TempFolder folder;
  write_tiny_tokenizer(
      folder, "{% for m in messages %}{{ m.content }}{% endfor %}");
  folder.write("data/a.txt", "some words of text ab ab ab ab and more\r\nend");
  folder.write("data/b.jsonl", kChats);
  folder.write("data/c.txt", "\xFF");
  const auto data = folder.path() / "data";
  TextReader reader(folder.path());
  const auto tokenizer = Tokenizer::load(folder.path());
  LoadDataOptions options;
  options.data_path = data.string();
  options.sequence_length = 4;
  for (const int count : {-1, 3}) {
    options.num_samples = count;
    const auto source = find_source(options, false, {});
    const auto here = read_source(tokenizer, source, options, {});
    const auto& all = here.summary;
    const auto order =
        choose(all.count, count < 0 ? all.count : 3, options.seed);
    const auto there = load_data(reader, options, {}, {});
    EXPECT_EQ(here.pool->take(order), there.sequences);
    EXPECT_EQ(here.pool->count_sources(order), there.sources);
    EXPECT_EQ(source.name, there.source);
    EXPECT_EQ(all.warnings, there.warnings);
    EXPECT_EQ(to_json(all.use), to_json(there.use));
  }
  EXPECT_EQ(reader.facts().bos_id, tokenizer.bos_id());
  EXPECT_EQ(reader.facts().vocab_size, tokenizer.vocab_size());
  EXPECT_EQ(reader.encode("ab c"), tokenizer.encode("ab c"));
  EXPECT_EQ(reader.decode(tokenizer.encode("ab c")), "<s>ab c");
}

TEST(TextReader, ChoosesByACallback) {
  TempFolder folder;
  write_tiny_tokenizer(folder);
  const auto text = folder.write("a.txt", "abcdefgh ijklmnop qrstuvwx");
  TextReader reader(folder.path());
  LoadDataOptions options;
  options.data_path = text.string();
  options.sequence_length = 4;
  const auto all = [&] {
    options.choose_from = [](size_t count) {
      std::vector<size_t> order(count);
      std::iota(order.begin(), order.end(), size_t{0});
      return order;
    };
    return load_data(reader, options, {}, {}).sequences;
  }();
  options.choose_from = [](size_t count) {
    return std::vector<size_t>{count - 1, 0};
  };
  const auto two = load_data(reader, options, {}, {}).sequences;
  EXPECT_EQ(two, (std::vector<std::vector<int32_t>>{all.back(), all.front()}));
}

TEST(TextReader, DeepValuesOfATemplate) {
  const std::string deep =
      "{% set ns = namespace(s=[1]) %}{% for i in range(50000) %}"
      "{% set ns.s = [ns.s] %}{% endfor %}";
  for (const char* use :
       {"{{ ns.s }}", "{{ ns.s|string }}", "{{ ns.s == [ns.s] }}"}) {
    expect_refused(deep + use, "nests too deeply");
  }
}

TEST(TextReader, MemoryOfATemplate) {
  expect_refused("{{ '{:>2000000000}'.format(1) }}", "MiB of memory");
  expect_refused(
      "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}x",
      "rows.jsonl");
}

TEST(TextReader, TimeOfATemplate) {
  expect_refused(
      "{% set s = 'x' * 10000000 %}{% set t = 'x' * 10000000 %}"
      "{% for a in range(10000) %}{{ s == t }}{% endfor %}",
      "processor time");
}

TEST(TextReader, TokenizersThatMultiplyText) {
  TempFolder folder;
  const auto text = folder.write("a.txt", std::string(20000, 'e'));
  const Json grow{
      {"type", "Replace"},
      {"pattern", {{"String", "e"}}},
      {"content", std::string(1000, 'e')}};
  auto json = tiny_tokenizer_json();
  json["normalizer"] = {
      {"type", "Sequence"}, {"normalizers", Json::array({grow, grow, grow})}};
  folder.write("tokenizer.json", json.dump());
  TextReader reader(folder.path());
  expect_error(
      ErrorCode::corrupt, "MiB of memory", [&] { read(reader, text); });
}

TEST(TextReader, KeepsTheMemoryLimit) {
  TempFolder folder;
  write_tiny_tokenizer(folder);
  const auto text = folder.write("a.txt", std::string(200000, 'e'));
  expect_error(ErrorCode::corrupt, "--memory-limit", [&] {
    TextReader reader(folder.path(), "1MB");
    read(reader, text);
  });
}

TEST(TextReader, LoadsWithTheTokenizersErrors) {
  TempFolder folder;
  expect_error(ErrorCode::not_found, "tokenizer.json", [&] {
    TextReader reader(folder.path());
  });
}

}  // namespace
}  // namespace pennyweight
