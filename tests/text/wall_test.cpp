#include "text/wall.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "text/rust_text.h"

namespace pennyweight {
namespace {

using testing::expect_error;

/// What the process behind the wall is asked to do, by name.
std::string serve(std::string_view request, const ProgressFn& progress) {
  const Wall::Section section(Wall::Part::read, "rows.jsonl, line 7", 10);
  if (request == "echo") {
    return "echo from " + std::to_string(::getpid());
  }
  if (request == "refuse") {
    throw Error(ErrorCode::not_supported, "here", "[no] such thing");
  }
  if (request == "crash") {
    std::raise(SIGSEGV);
  }
  if (request == "spin") {
    while (std::getenv("PENNYWEIGHT_NO_SUCH") == nullptr) {
    }
  }
  if (request == "report") {
    for (int64_t i = 0;; ++i) {
      report(progress, {"data", i, 0, "tokens"});
    }
  }
  if (request == "exit") {
    ::_exit(0);
  }
  return "";
}

TEST(Wall, AnswersFromAnotherProcess) {
  Wall wall(serve);
  const auto answer = wall.ask("echo");
  EXPECT_TRUE(answer.starts_with("echo from "));
  EXPECT_NE(answer, "echo from " + std::to_string(::getpid()));
  EXPECT_EQ(wall.ask("echo"), answer);
}

TEST(Wall, ErrorsComeThroughAndItGoesOn) {
  Wall wall(serve);
  for (int i = 0; i < 2; ++i) {
    try {
      wall.ask("refuse");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::not_supported);
      EXPECT_STREQ(error.what(), "[here] [no] such thing");
    }
  }
  EXPECT_FALSE(wall.ask("echo").empty());
}

TEST(Wall, ACrashIsAnErrorThatNamesTheRow) {
  for (const char* how : {"crash", "exit"}) {
    Wall wall(serve);
    expect_error(
        ErrorCode::corrupt, "rows.jsonl, line 7", [&] { wall.ask(how); });
    // It stays dead, and says so.
    expect_error(
        ErrorCode::corrupt, "rows.jsonl, line 7", [&] { wall.ask("echo"); });
  }
}

TEST(Wall, AnEndlessLoopIsEndedByItsProcessorTime) {
  Wall wall(serve);
  expect_error(ErrorCode::corrupt, "processor time", [&] { wall.ask("spin"); });
}

TEST(Wall, ProgressIsHeardAndCancels) {
  Wall wall(serve);
  int64_t last = -1;
  const auto progress = [&](const ProgressEvent& event) {
    EXPECT_EQ(event.done, last + 1);
    last = event.done;
    return last < 100;
  };
  expect_error(
      ErrorCode::cancelled, "stopped", [&] { wall.ask("report", progress); });
  EXPECT_EQ(last, 100);
}

TEST(Wall, NoProcessStays) {
  std::string answer;
  {
    Wall wall(serve);
    answer = wall.ask("echo");
  }
  const pid_t pid = std::stoi(answer.substr(std::string("echo from ").size()));
  EXPECT_NE(::kill(pid, 0), 0);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
}

TEST(Wall, SectionsElsewhereDoNothing) {
  const Wall::Section section(Wall::Part::read, "here", 0);
  EXPECT_FALSE(serve("echo", {}).empty());
}

}  // namespace
}  // namespace pennyweight
