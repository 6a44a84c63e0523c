#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "core/json.h"
#include "support/expect_error.h"
#include "text/tiny_tokenizer.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::TempFolder;
using testing::write_tiny_tokenizer;

Tokenizer tiny(const std::string& chat_template = "") {
  TempFolder folder;
  write_tiny_tokenizer(folder, chat_template);
  return Tokenizer::load(folder.path());
}

const Json kChat = {
    {{"role", "user"}, {"content", "hi"}},
    {{"role", "assistant"}, {"content", "yo"}}};

TEST(Tokenizer, EncodesAndDecodes) {
  auto tokenizer = tiny();
  EXPECT_EQ(
      tokenizer.encode("ab a"), (std::vector<int32_t>{0, 259, 3 + ' ', 100}));
  EXPECT_EQ(tokenizer.encode("", false), std::vector<int32_t>{});
  auto ids = tokenizer.encode("</s>é\n");
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1, 3 + 0xC3, 3 + 0xA9, 3 + '\n'}));
  EXPECT_EQ(tokenizer.decode(ids), "<s></s>é\n");
  EXPECT_EQ(tokenizer.decode(ids, true), "é\n");
  EXPECT_EQ(tokenizer.vocab_size(), 260);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
}

TEST(Tokenizer, EncodesFromSeveralThreads) {
  auto tokenizer = tiny();
  std::string text;
  for (int i = 0; i < 2000; ++i) {
    text += "word " + std::to_string(i) + " ab\n";
  }
  auto expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<std::vector<int32_t>> results(4);
  for (auto& result : results) {
    threads.emplace_back([&] { result = tokenizer.encode(text); });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  for (const auto& result : results) {
    EXPECT_EQ(result, expected);
  }
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  auto tokenizer = tiny();
  expect_error(ErrorCode::invalid_argument, "UTF-8 at byte 2", [&] {
    tokenizer.encode("ab\xFF");
  });
  auto chatty = tiny("{{ messages }}");
  expect_error(ErrorCode::invalid_argument, "UTF-8", [&] {
    chatty.render_chat({{{"role", "user"}, {"content", "\xFF"}}}, false);
  });
}

TEST(Tokenizer, DecodesIdsThatDoNotExist) {
  auto tokenizer = tiny();
  std::vector<int32_t> ids = {100, 1 << 30, -1, 101};
  EXPECT_EQ(tokenizer.decode(ids), "ab");
}

TEST(Tokenizer, SaysWhatIsMissing) {
  TempFolder folder;
  expect_error(ErrorCode::not_found, "is no folder", [&] {
    Tokenizer::load(folder.path() / "none");
  });
  expect_error(ErrorCode::not_found, "no tokenizer.json", [&] {
    Tokenizer::load(folder.path());
  });
  folder.write("tokenizer.model", "x");
  expect_error(ErrorCode::not_supported, "save_pretrained", [&] {
    Tokenizer::load(folder.path());
  });
}

TEST(Tokenizer, NamedTokensComeFromEitherFile) {
  TempFolder folder;
  folder.write("tokenizer.json", testing::tiny_tokenizer_json().dump());
  EXPECT_EQ(Tokenizer::load(folder.path()).bos_id(), std::nullopt);
  folder.write("special_tokens_map.json", R"({"bos_token": "</s>"})");
  EXPECT_EQ(Tokenizer::load(folder.path()).bos_id(), 1);
  folder.write("tokenizer_config.json", R"({"bos_token": null})");
  EXPECT_EQ(Tokenizer::load(folder.path()).bos_id(), std::nullopt);
  folder.write("tokenizer_config.json", R"({"eos_token": "<new>"})");
  auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer.eos_id(), 260);
  EXPECT_EQ(tokenizer.encode("<new>", false), std::vector<int32_t>{260});
}

TEST(ChatTemplate, Renders) {
  auto tokenizer = tiny(
      "{{ bos_token }}{% for m in messages %}\n"
      "  {% if m.role == 'user' %}\n"
      "[{{ m.content }}]\n"
      "  {% else %}\n"
      "{{ m.content + eos_token }}\n"
      "  {% endif %}\n"
      "{% endfor %}{% if add_generation_prompt %}>{% endif %}");
  EXPECT_TRUE(tokenizer.has_chat_template());
  EXPECT_EQ(tokenizer.render_chat(kChat, false), "<s>[hi]\nyo</s>\n");
  EXPECT_EQ(tokenizer.render_chat(kChat, true), "<s>[hi]\nyo</s>\n>");
}

TEST(ChatTemplate, AbsentIsNotSupported) {
  auto tokenizer = tiny();
  EXPECT_FALSE(tokenizer.has_chat_template());
  expect_error(ErrorCode::not_supported, "no chat template", [&] {
    tokenizer.render_chat(kChat, false);
  });
}

TEST(ChatTemplate, SpeaksForItself) {
  auto tokenizer = tiny("{{ raise_exception('roles must alternate') }}");
  expect_error(ErrorCode::corrupt, "the template says: roles must", [&] {
    tokenizer.render_chat(kChat, false);
  });
}

TEST(ChatTemplate, GenerationBlocksChangeNothing) {
  auto tokenizer = tiny(
      "{% for m in messages %}{%- generation -%} {{ m.content }}"
      "{% endgeneration %}{% endfor %}");
  EXPECT_EQ(tokenizer.render_chat(kChat, false), "hiyo");
}

TEST(ChatTemplate, KnowsTheDate) {
  auto tokenizer = tiny("{{ strftime_now('%Y') }}");
  EXPECT_GE(std::stoi(tokenizer.render_chat(kChat, false)), 2024);
  auto odd = tiny("{{ strftime_now('%') }}{{ strftime_now('%!') }}");
  EXPECT_THROW(odd.render_chat(kChat, false), Error);
}

TEST(ChatTemplate, FileBeatsConfig) {
  TempFolder folder;
  write_tiny_tokenizer(folder, "config");
  folder.write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(Tokenizer::load(folder.path()).render_chat(kChat, false), "json");
  folder.write("chat_template.jinja", "jinja");
  EXPECT_EQ(Tokenizer::load(folder.path()).render_chat(kChat, false), "jinja");
}

class HostileTemplate : public ::testing::TestWithParam<const char*> {};

TEST_P(HostileTemplate, EndsInAnErrorSoon) {
  auto tokenizer = tiny(GetParam());
  auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(tokenizer.render_chat(kChat, false), Error);
  // Generous: the slowest takes a fraction of a second on an idle machine.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

std::string nested(const char* open, const char* close, int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) {
    text += open;
  }
  for (int i = 0; i < depth; ++i) {
    text += close;
  }
  return text;
}

const std::string kDeepIfs = nested("{% if true %}", "{% endif %}", 20000);
const std::string kDeepParens = "{{ " + nested("(", ")", 100000) + " }}";
const std::string kDeepLists = "{{ " + nested("[", "]", 100000) + " }}";

INSTANTIATE_TEST_SUITE_P(
    All,
    HostileTemplate,
    ::testing::Values(
        "{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}",
        "{{ 'x' * 999999999999 }}",
        "{{ range(99999999999) | list }}",
        "{{ [[1] * 10000000] * 10000000 }}",
        "{% set x %}{{ [[1] * 10000000] * 10000000 }}{% endset %}{{ x }}",
        "{% autoescape true %}{{ [[1] * 10000000] * 10000000 }}"
        "{% endautoescape %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(99) "
        "%}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% for m in messages %}",
        "{{ messages[0]['content']['x']['y'] }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ messages | tojson(indent=-1) }}",
        "{% generation %}",
        "{{",
        kDeepIfs.c_str(),
        kDeepParens.c_str(),
        kDeepLists.c_str()));

}  // namespace
}  // namespace pennyweight
