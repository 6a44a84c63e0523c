#include "export/report_page.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/json.h"

namespace pennyweight {
namespace {

/// What an HTML parser takes for the script that holds the data.
std::string data_of(const std::string& page) {
  std::string mark = "<script type=\"application/json\" id=\"data\">";
  auto begin = page.find(mark);
  EXPECT_NE(begin, std::string::npos);
  EXPECT_EQ(page.find(mark, begin + 1), std::string::npos);
  begin += mark.size();
  return page.substr(begin, page.find("</script", begin) - begin);
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos;
       at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

TEST(ReportPage, HoldsItsDataAndItsParts) {
  Json data = {{"model", "org/name"}, {"fidelity", {{"kl_mean", 0.25}}}};
  auto page = report_page(data);
  EXPECT_EQ(Json::parse(data_of(page)), data);
  EXPECT_EQ(page.rfind("<!doctype html>", 0), 0u);
  EXPECT_EQ(page.substr(page.size() - 8), "</html>\n");
  EXPECT_EQ(count(page, "<style>"), 1u);
  for (const char* part :
       {"--ground: light-dark",
        "function sig(",
        "function line_chart(",
        "function map_rows(",
        "function draw_frontier(",
        "\ndraw();\n"}) {
    EXPECT_EQ(count(page, part), 1u) << part;
  }
}

TEST(ReportPage, HostileTextStaysText) {
  auto clean = report_page(Json::object());
  for (const std::string text :
       {"</script><script>alert(1)</script>",
        "</SCRIPT >",
        "<!--<script>",
        "<img src=x onerror=alert(1)>",
        "]]>",
        "&lt;/script&gt;",
        "\"'`\\",
        "\xe2\x80\xa8\xe2\x80\xa9",
        "\xf0\x9f\x98\x80",
        "\xe2\x80\xae\x01\x1f\x7f"}) {
    Json data = {{text, text}, {"notes", {text}}};
    auto page = report_page(data);
    auto held = data_of(page);
    EXPECT_EQ(Json::parse(held), data) << text;
    EXPECT_EQ(held.find_first_of("<>&"), std::string::npos) << text;
    for (char c : held) {
      EXPECT_TRUE(c >= 0x20 && c < 0x80) << text;
    }
    // All that is not data is as it was.
    EXPECT_EQ(count(page, "<"), count(clean, "<")) << text;
    EXPECT_EQ(page.size() - held.size(), clean.size() - 2) << text;
  }
}

TEST(ReportPage, TextThatIsNoUnicodeIsReplaced) {
  // A lone surrogate, a cut sequence, an overlong '<', a byte that never is.
  for (const std::string bytes :
       {"\xed\xa0\x80", "\xe2\x80", "\xc0\xbc", "\xff"}) {
    auto held = data_of(report_page({{"model", "a" + bytes + "b"}}));
    auto text = Json::parse(held)["model"].get<std::string>();
    EXPECT_EQ(text.front(), 'a');
    EXPECT_EQ(text.back(), 'b');
    EXPECT_EQ(held.find('<'), std::string::npos);
  }
}

TEST(ReportPage, NumbersThatAreNotFiniteAreMissing) {
  Json data = {
      {"seconds", std::nan("")},
      {"bytes_in", std::numeric_limits<double>::infinity()}};
  auto held = Json::parse(data_of(report_page(data)));
  EXPECT_TRUE(held["seconds"].is_null());
  EXPECT_TRUE(held["bytes_in"].is_null());
}

TEST(ReportPage, LoadsNothing) {
  auto page = report_page(Json::object());
  EXPECT_EQ(count(page, "http:"), 0u);
  EXPECT_EQ(count(page, "https:"), 0u);
  EXPECT_EQ(count(page, "//cdn"), 0u);
  EXPECT_EQ(count(page, "@import"), 0u);
  EXPECT_EQ(count(page, "@font-face"), 0u);
  for (const char* way :
       {"src=\"",
        "href=\"",
        "srcset",
        "action=\"",
        " data=\"",
        "<link",
        "<iframe",
        "<img",
        "<object",
        "<base"}) {
    EXPECT_EQ(count(page, way), 0u) << way;
  }
  // But for parts of the page itself.
  EXPECT_EQ(count(page, "url("), count(page, "url(#"));
  // Nor does it make markup or code of text.
  for (const char* way :
       {"innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "XMLHttpRequest",
        "import("}) {
    EXPECT_EQ(count(page, way), 0u) << way;
  }
  EXPECT_EQ(count(page, "default-src 'none'"), 1u);
}

}  // namespace
}  // namespace pennyweight
