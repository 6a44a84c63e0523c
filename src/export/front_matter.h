#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace pennyweight {

/// What a model card says of its model's licence and languages, in the YAML
/// that stands before its text.
struct FrontMatter {
  /// `license`, `license_name`, `license_link`, `language`: a string or an
  /// array of strings, of printable ASCII. Other keys are not read.
  Json values = Json::object();
  /// Keys of these that are there and make no sense: a value of another kind,
  /// of a shape that no card needs (anchors, tags, blocks), or given twice.
  std::vector<std::string> dropped;
};

/// Reads untrusted text. Understood are plain and quoted scalars on one line,
/// `[a, b]`, and lists of one item a line. Never fails: text without front
/// matter has none.
FrontMatter parse_front_matter(std::string_view text);

/// Of a README.md, which may be missing.
FrontMatter read_front_matter(const std::filesystem::path& readme);

/// `text` as a YAML scalar that every parser reads as this string: plain where
/// that is safe, else quoted. `text` is printable ASCII.
std::string yaml_scalar(const std::string& text);

}  // namespace pennyweight
