#include "export/side_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.h"
#include "core/files/atomic_file.h"

namespace pennyweight {
namespace {

class SideFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pw-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    fs::create_directory(from());
    fs::create_directory(folder_ / "to");
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  fs::path from() const {
    return folder_ / "from";
  }
  void put(const std::string& name, const std::string& text = "{}") {
    fs::create_directories((from() / name).parent_path());
    write_file(from() / name, text);
  }
  // The only warning that names the file.
  std::string warning_about(const std::string& name) {
    const auto files = list_side_files(from());
    std::string found;
    for (const auto& text : files.warnings) {
      if (text.starts_with(name + " ")) {
        EXPECT_TRUE(found.empty()) << text;
        found = text;
      }
    }
    EXPECT_FALSE(found.empty()) << name;
    return found;
  }
  fs::path folder_;
};

// https://github.com/ml-explore/mlx-lm/pull/205,
// https://github.com/ggml-org/llama.cpp/issues/3732,
// https://github.com/ggml-org/llama.cpp/issues/7486 and
// https://github.com/huggingface/peft/issues/1381
TEST_F(SideFilesTest, WhatMlxLmFetchesIsCarried) {
  std::vector<std::string> wanted{
      "additional_chat_templates/tool_use.jinja",
      "chat_template.jinja",
      "generation_config.json",
      "merges.txt",
      "params.json",
      "qwen.tiktoken",
      "rows.jsonl",
      "sentencepiece.bpe.model",
      "tekken.json",
      "tiktoken.model",
      "tokenization_x.py",
      "tokenizer.json",
      "tokenizer.model",
      "tokenizer.model.v3",
      "tokenizer.model.v11m"};
  std::ranges::sort(wanted);
  for (const auto& name : wanted) {
    put(name);
  }
  for (const char* name :
       {"config.json",
        "hf_quant_config.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "consolidated.safetensors",
        "optimizer.pt",
        "LICENSE",
        "LICENSE.txt",
        "README.md",
        ".hidden.json",
        "._tokenizer.json",
        "original/params.json",
        "additional_chat_templates/evil.py",
        "additional_chat_templates/.x.jinja",
        "model.safetensors.index.json"}) {
    put(name);
  }
  const auto files = list_side_files(from());
  EXPECT_EQ(files.names, wanted);
  EXPECT_TRUE(files.warnings.empty());
  EXPECT_EQ(copy_side_files(files, from(), folder_ / "to"), wanted);
  size_t there = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "to")) {
    there += entry.is_regular_file();
  }
  EXPECT_EQ(there, wanted.size());
}

TEST_F(SideFilesTest, WhatIsDamagedIsCarriedWithAWarning) {
  const std::string comma = "{\"a\": 1,\n}";
  put("generation_config.json", comma);
  put("empty.json", "");
  put("mark.json", "\xEF\xBB\xBF{}");
  put("tokenizer.model", "version https://git-lfs.github.com/spec/v1\nsize 1");
  put("page.txt", "<!DOCTYPE html>");
  put("nan.json", "[NaN, 1e999]");
  put("empty.txt", "");
  const auto files = list_side_files(from());
  EXPECT_EQ(files.names.size(), 7u);
  EXPECT_EQ(files.warnings.size(), 5u);
  EXPECT_NE(
      warning_about("generation_config.json").find("not valid JSON"),
      std::string::npos);
  EXPECT_NE(warning_about("empty.json").find("empty"), std::string::npos);
  EXPECT_NE(
      warning_about("tokenizer.model").find("git lfs pull"), std::string::npos);
  copy_side_files(files, from(), folder_ / "to");
  EXPECT_EQ(read_file(folder_ / "to/generation_config.json", 99), comma);
}

// https://github.com/huggingface/huggingface_hub/pull/4550
TEST_F(SideFilesTest, WhatCannotBeCarriedIsLeftOutWithAWarning) {
  fs::create_symlink("nowhere", from() / "gone.json");
  fs::create_symlink("loop.json", from() / "loop.json");
  fs::create_directory(from() / "folder.json");
  ASSERT_EQ(::mkfifo((from() / "pipe.json").c_str(), 0600), 0);
  put("huge.jsonl");
  fs::resize_file(from() / "huge.jsonl", (uintmax_t{1} << 30) + 1);
  put("a.json");
  fs::create_symlink("a.json", from() / "link.json");
  const auto files = list_side_files(from());
  EXPECT_EQ(files.names, (std::vector<std::string>{"a.json", "link.json"}));
  EXPECT_EQ(files.warnings.size(), 5u);
  EXPECT_NE(warning_about("gone.json").find("link"), std::string::npos);
  EXPECT_NE(warning_about("loop.json").find("link"), std::string::npos);
  EXPECT_NE(warning_about("huge.jsonl").find("1 GiB"), std::string::npos);
  fs::remove(from() / "a.json");
  EXPECT_TRUE(copy_side_files(files, from(), folder_ / "to").empty())
      << "gone since it was listed";
  EXPECT_THROW(list_side_files(folder_ / "none"), Error);
}

TEST_F(SideFilesTest, ALinkOutOfTheFolderIsNotFollowed) {
  write_file(folder_ / "secret.json", "{}");
  fs::create_symlink(folder_ / "secret.json", from() / "notes.json");
  fs::create_symlink("../secret.json", from() / "other.json");
  put("sub/inner.json");
  fs::create_symlink("sub/inner.json", from() / "own.json");
  const auto files = list_side_files(from());
  EXPECT_EQ(files.names, std::vector<std::string>{"own.json"});
  EXPECT_EQ(files.warnings.size(), 2u);
  EXPECT_NE(warning_about("notes.json").find("secret.json"), std::string::npos);
  EXPECT_NE(
      warning_about("other.json").find("leads out of the folder"),
      std::string::npos);
  // One that has become such a link since it was listed.
  fs::remove(from() / "own.json");
  fs::create_symlink("../secret.json", from() / "own.json");
  EXPECT_TRUE(copy_side_files(files, from(), folder_ / "to").empty());
}

TEST_F(SideFilesTest, WhatAnOutputNeedsHasToBeInTheFolder) {
  fs::create_directory(folder_ / "elsewhere");
  write_file(folder_ / "elsewhere" / "x.jinja", "T");
  for (const char* name :
       {"tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "chat_template.jinja"}) {
    fs::create_symlink("../elsewhere/x.jinja", from() / name);
    try {
      list_side_files(from());
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      const std::string what = error.what();
      EXPECT_NE(what.find(name), std::string::npos) << what;
      EXPECT_NE(what.find("copy that file into"), std::string::npos) << what;
    }
    fs::remove(from() / name);
  }
  fs::create_directory_symlink(
      "../elsewhere", from() / "additional_chat_templates");
  EXPECT_THROW(list_side_files(from()), Error);
}

// huggingface_hub's layout: a snapshot's files are links to its blobs.
TEST_F(SideFilesTest, ASnapshotOfTheHubsCacheIsWhole) {
  const auto home = folder_ / "models--org--name";
  const auto snapshot = home / "snapshots" / "0123";
  fs::create_directories(snapshot);
  fs::create_directories(home / "blobs");
  write_file(home / "blobs" / "abc", "{}");
  fs::create_symlink("../../blobs/abc", snapshot / "tokenizer.json");
  fs::create_symlink(folder_ / "from", snapshot / "out.json");
  // A blob that several repositories have in common.
  fs::create_directories(folder_ / "blobs" / "ab");
  write_file(folder_ / "blobs" / "ab" / "cd", "{}");
  fs::create_symlink("../../blobs/ab/cd", home / "blobs" / "def");
  fs::create_symlink("../../blobs/def", snapshot / "vocab.json");
  EXPECT_EQ(
      list_side_files(snapshot).names,
      (std::vector<std::string>{"tokenizer.json", "vocab.json"}));
  fs::create_directory_symlink(snapshot, folder_ / "short");
  EXPECT_EQ(list_side_files(folder_ / "short").names.size(), 2u);
  EXPECT_EQ(
      copy_side_files(list_side_files(snapshot), snapshot, folder_ / "to")
          .size(),
      2u);
}

}  // namespace
}  // namespace pennyweight
