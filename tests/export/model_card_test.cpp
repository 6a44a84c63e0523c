#include "export/model_card.h"

#include <gtest/gtest.h>

#include <cctype>
#include <random>

#include "core/files/atomic_file.h"
#include "core/json.h"
#include "export/front_matter.h"

namespace pennyweight {
namespace {

Json values(const std::string& yaml) {
  return parse_front_matter("---\n" + yaml + "\n---\n# text\n").values;
}

std::vector<std::string> dropped(const std::string& yaml) {
  return parse_front_matter("---\n" + yaml + "\n---\n").dropped;
}

using Names = std::vector<std::string>;

// The lines between the two `---`, without them.
std::string matter_of(const std::string& card) {
  EXPECT_TRUE(card.starts_with("---\n"));
  auto end = card.find("\n---\n");
  return card.substr(4, end - 3);
}

TEST(FrontMatter, ReadsScalarsAndLists) {
  auto json = values(
      "license: apache-2.0  # as the code\n"
      "license_name: \"The Name, 2.0\"\n"
      "license_link: 'https://host.test/LICENSE#x'\n"
      "unknown:\n  nested: {a: 1}\n"
      "language:\n- en\n-  'no'\n  # a comment\n- zh-Hant");
  EXPECT_EQ(json["license"], "apache-2.0");
  EXPECT_EQ(json["license_name"], "The Name, 2.0");
  EXPECT_EQ(json["license_link"], "https://host.test/LICENSE#x");
  EXPECT_EQ(json["language"], Json({"en", "no", "zh-Hant"}));
  EXPECT_EQ(json.size(), 4u);
  EXPECT_EQ(values("language: [en, \"fr\" ,de]  # x")["language"].size(), 3u);
  EXPECT_EQ(values("language:\n  - en\n  - fr")["language"].size(), 2u);
  EXPECT_EQ(values("license: mit\r")["license"], "mit");
}

TEST(FrontMatter, IsOnlyWhatStandsBetweenTheFirstLines) {
  EXPECT_TRUE(parse_front_matter("").values.empty());
  EXPECT_TRUE(parse_front_matter("license: mit\n").values.empty());
  EXPECT_TRUE(parse_front_matter("\n---\nlicense: mit\n---\n").values.empty());
  EXPECT_TRUE(parse_front_matter("---\nlicense: mit\n").values.empty());
  EXPECT_TRUE(parse_front_matter("---\n---\nlicense: mit\n").values.empty());
  EXPECT_EQ(
      parse_front_matter("\xEF\xBB\xBF---\nlicense: mit\n---").values.size(),
      1u);
  // An end past the limit is none.
  EXPECT_TRUE(
      parse_front_matter(
          "---\nlicense: mit\nx: " + std::string(1 << 20, 'a') + "\n---\n")
          .values.empty());
}

TEST(FrontMatter, ABlockOfTextSetsNothing) {
  auto json = values(
      "extra_gated_prompt: >-\n  license: gpl\n  language: xx\n"
      "nested:\n  license: gpl\nlicense: mit");
  EXPECT_EQ(json, Json({{"license", "mit"}}));
}

TEST(FrontMatter, DropsWhatItCantRead) {
  for (const std::string value :
       {"!!python/object/apply:os.system [x]",
        "&anchor mit",
        "*alias",
        "|\n  mit",
        ">-\n  mit",
        "{name: mit}",
        "[[mit]]",
        "[mit",
        "[]",
        "[mit,]",
        "\"mit",
        "\"mit\" x",
        "\"m\\x69t\"",
        "'m''t'",
        "mit\n  and more",
        "a: b",
        "mit\ttab",
        "\xC3\xA9t\xC3\xA9",
        "mit\nlicense: gpl",
        "",
        "\n- mit\n- a: b",
        "\n- [mit]",
        "\n  mit",
        "<script>",
        "mit | x"}) {
    EXPECT_EQ(values("license: " + value).size(), 0u) << value;
    EXPECT_EQ(dropped("license: " + value), Names{"license"}) << value;
  }
  EXPECT_EQ(dropped("license:mit"), Names{"license"});
  EXPECT_EQ(dropped("license: " + std::string(65, 'a')), Names{"license"});
  EXPECT_EQ(dropped("license_name: [a, b]"), Names{"license_name"});
  EXPECT_EQ(dropped("license_link: ../../etc"), Names{"license_link"});
  EXPECT_EQ(dropped("license_link: /etc/passwd"), Names{"license_link"});
  EXPECT_EQ(dropped("license_link: javascript:x"), Names{"license_link"});
  EXPECT_EQ(dropped("license_link: https://a b"), Names{"license_link"});
  EXPECT_EQ(dropped("language: [en, 'e n']"), Names{"language"});
  EXPECT_EQ(
      dropped("language: [" + std::string(5000, ',') + "]"), Names{"language"});
}

TEST(FrontMatter, AFileThatIsMissingHasNone) {
  EXPECT_TRUE(read_front_matter("/no/such/README.md").values.empty());
  EXPECT_TRUE(read_front_matter("/").values.empty());
}

TEST(FrontMatter, HoldsNothingOddWhateverTheTextIs) {
  const std::vector<std::string> kPieces{
      "license",
      "language",
      ": ",
      ":",
      "\n",
      "- ",
      "-",
      "[",
      "]",
      ",",
      "\"",
      "'",
      "#",
      " ",
      "mit",
      "en",
      "---\n",
      "|",
      "&a",
      "*a",
      "{",
      "}",
      "\\",
      "\xff",
      "\t",
      std::string(1, '\0'),
      "license_link: ",
      "https://x",
      "\r"};
  std::mt19937 random(1);
  size_t read = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string text = i % 2 ? "license: " : "language:\n- ";
    for (auto count = random() % 8; count > 0; --count) {
      text += kPieces[random() % kPieces.size()];
    }
    auto json = values(text);
    read += json.size();
    for (const auto& [key, value] : json.items()) {
      auto item = value.is_array() ? value : Json::array({value});
      for (const auto& word : item) {
        auto scalar = yaml_scalar(word.get<std::string>());
        EXPECT_EQ(scalar.find_first_of("\n\r\t"), std::string::npos) << text;
        EXPECT_TRUE(scalar[0] == '"' || std::isalpha(scalar[0])) << text;
      }
    }
  }
  EXPECT_GT(read, 1000u);
}

TEST(YamlScalar, QuotesWhatWouldMeanSomethingElse) {
  for (const std::string text : {"mit", "apache-2.0", "org/name", "zh-Hant"}) {
    EXPECT_EQ(yaml_scalar(text), text);
  }
  for (const std::string text :
       {"no", "Yes", "NULL", "1.0", "4-bit", "", "-", "a: b", "a #b", "~"}) {
    EXPECT_EQ(yaml_scalar(text), "\"" + text + "\"");
  }
  EXPECT_EQ(yaml_scalar("a\"b\\"), R"("a\"b\\")");
}

TEST(ModelCard, NamesAHubModelButNoFolderOfThisMachine) {
  auto card = model_card({"org/name@main", "A summary."});
  EXPECT_NE(card.find("\nbase_model: org/name\n"), std::string::npos);
  EXPECT_EQ(card.find("quantized"), std::string::npos);
  EXPECT_NE(card.find("\n# org/name@main for MLX\n\nA summary.\n"), card.npos);
  for (const auto* folder : {"/home/someone/model", "../someone/model/"}) {
    card = model_card({folder, "x"});
    EXPECT_EQ(card.find("someone"), std::string::npos);
    EXPECT_EQ(card.find("base_model"), std::string::npos);
    EXPECT_NE(card.find("# model for MLX"), std::string::npos);
  }
  EXPECT_NE(model_card({".", "x"}).find("# A model for"), std::string::npos);
}

TEST(ModelCard, TagsTheWidthWhereThereIsOne) {
  ModelCard card{"org/name", "x"};
  card.quantization = {{"group_size", 64}, {"bits", 4}, {"mode", "affine"}};
  EXPECT_EQ(
      matter_of(model_card(card)),
      "library_name: mlx\npipeline_tag: text-generation\n"
      "base_model: org/name\nbase_model_relation: quantized\n"
      "tags:\n- mlx\n- \"4-bit\"\n- quantized\n");
  card.quantization["lm_head"] = {{"group_size", 32}, {"bits", 4}};
  card.quantization["model.embed_tokens"] = false;
  EXPECT_NE(model_card(card).find("4-bit"), std::string::npos);
  card.quantization["lm_head"]["bits"] = 6;
  auto text = matter_of(model_card(card));
  EXPECT_EQ(text.find("-bit"), std::string::npos);
  EXPECT_NE(text.find("- quantized\n"), std::string::npos);
}

TEST(ModelCard, CarriesWhatTheSourceSays) {
  ModelCard card{"org/name", "x"};
  card.base = values(
      "license: other\nlicense_name: the name\nlicense_link: LICENSE\n"
      "language: [en, no]\ntags: [evil]");
  auto text = matter_of(model_card(card));
  EXPECT_NE(text.find("license: other\n"), std::string::npos);
  EXPECT_NE(text.find("license_name: \"the name\"\n"), std::string::npos);
  EXPECT_NE(
      text.find("license_link: "
                "\"https://huggingface.co/org/name/blob/main/LICENSE\"\n"),
      std::string::npos);
  EXPECT_NE(text.find("language:\n- en\n- \"no\"\n"), std::string::npos);
  EXPECT_EQ(text.find("evil"), std::string::npos);
  card.source = "folder";  // whose LICENSE is not beside the output
  EXPECT_EQ(model_card(card).find("license_link"), std::string::npos);
}

TEST(ModelCard, HasTheTablesThatItIsGiven) {
  ModelCard card{"org/name", "x"};
  EXPECT_EQ(model_card(card).find("|"), std::string::npos);
  card.fidelity = {{"KL", "0.0123"}, {"text", "a|b\n<b>.txt"}};
  card.stages = {{"awq", 0.02345, true}, {"gptq", std::nullopt, false}};
  card.command = "pennyweight gptq\n--model org/name";
  card.recipe = card.report = true;
  auto text = model_card(card);
  EXPECT_NE(text.find("| KL | 0.0123 |\n"), std::string::npos);
  EXPECT_NE(text.find("| text | a\\|b \\<b\\>.txt |\n"), std::string::npos);
  EXPECT_NE(text.find("| awq | 0.02345 | yes |\n"), std::string::npos);
  EXPECT_NE(text.find("| gptq | - | no |\n"), std::string::npos);
  EXPECT_NE(
      text.find("\n    pennyweight gptq --model org/name\n"),
      std::string::npos);
  EXPECT_NE(text.find("`recipe.json`"), std::string::npos);
  EXPECT_NE(text.find("`report.html`"), std::string::npos);
}

}  // namespace
}  // namespace pennyweight
