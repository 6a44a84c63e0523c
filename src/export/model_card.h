#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"

namespace pennyweight {

/// A step of the way to the output.
struct CardStage {
  std::string name;
  std::optional<double> kl{};  // mean divergence from the full model after it
  bool kept = true;
};

/// What the README.md of an output says. All but the first two may be left out,
/// and its part of the card with it.
struct ModelCard {
  std::string source;  // as the user named it: a hub id or a folder
  std::string summary;
  Json base{};           // FrontMatter::values of the source's card
  std::string packed{};  // PackedSource::describe() of the source; or empty
  Json quantization{};   // config.json's; null: not quantized
  /// A table: what was measured, and its figure.
  std::vector<std::pair<std::string, std::string>> fidelity{};
  std::vector<CardStage> stages{};
  std::string mtp{};      // describe_mtp()
  std::string command{};  // the whole command line, quoted for a shell
  bool recipe = false;    // recipe.json is in the folder
  bool report = false;    // report.html is
};

/// The card in the hub's format: YAML front matter, then Markdown. Of a folder
/// of this machine only its last name is told.
std::string model_card(const ModelCard& card);

}  // namespace pennyweight
