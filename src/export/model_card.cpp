#include "export/model_card.h"

#include <filesystem>

#include "core/error.h"
#include "core/hub_name.h"
#include "core/json.h"
#include "core/text.h"
#include "export/front_matter.h"

namespace pennyweight {

namespace {

constexpr size_t kMaxCommand = 4000;

// Text for a line of Markdown: no markup, no end of a cell.
std::string plain(const std::string& text, size_t limit = 300) {
  std::string escaped;
  for (char c : one_line(text, limit)) {
    if (std::string_view("\\`*_[]<>|#").find(c) != std::string_view::npos) {
      escaped += '\\';
    }
    escaped += c;
  }
  return escaped;
}

std::string title_of(const std::string& source) {
  auto path = std::filesystem::path(source).lexically_normal();
  auto name =
      path.filename().empty() ? path.parent_path().filename() : path.filename();
  bool named = !name.empty() && name != "." && name != "..";
  return named ? name.string() : "A model";
}

// The width that all quantized modules share, or 0.
int uniform_bits(const Json& quantization) {
  auto bits_of = [](const Json& object) {
    auto bits = object.find("bits");
    return bits != object.end() && bits->is_number_integer() ? bits->get<int>()
                                                             : 0;
  };
  if (!quantization.is_object()) {
    return 0;
  }
  int bits = bits_of(quantization);
  for (const auto& [key, value] : quantization.items()) {
    if (value.is_object() && bits_of(value) != bits) {
      return 0;
    }
  }
  return bits;
}

void add_value(std::string& text, const std::string& key, const Json& value) {
  if (value.is_string()) {
    text += key + ": " + yaml_scalar(value.get<std::string>()) + "\n";
  } else {
    text += key + ":\n";
    for (const auto& item : value) {
      text += "- " + yaml_scalar(item.get<std::string>()) + "\n";
    }
  }
}

std::string front_matter(const ModelCard& card, const std::string& hub_id) {
  std::string text = "---\nlibrary_name: mlx\npipeline_tag: text-generation\n";
  bool quantized = !card.quantization.is_null();
  if (!hub_id.empty()) {
    add_value(text, "base_model", hub_id);
    if (quantized) {
      text += "base_model_relation: quantized\n";
    }
  }
  if (card.base.is_object()) {
    for (const auto& [key, value] : card.base.items()) {
      bool file = key == "license_link" &&
          !value.get<std::string>().starts_with("http");
      // A file of the source's repository, which is not beside this card.
      if (file && hub_id.empty()) {
        continue;
      }
      add_value(
          text,
          key,
          file ? Json(
                     "https://huggingface.co/" + hub_id + "/blob/main/" +
                     value.get<std::string>())
               : value);
    }
  }
  text += "tags:\n- mlx\n";
  if (int bits = uniform_bits(card.quantization)) {
    text += "- " + yaml_scalar(std::to_string(bits) + "-bit") + "\n";
  }
  return text + (quantized ? "- quantized\n---\n" : "---\n");
}

std::string tables(const ModelCard& card) {
  std::string text;
  if (!card.fidelity.empty()) {
    text += "\n## Fidelity\n\n| measured | figure |\n| --- | --- |\n";
  }
  for (const auto& [name, figure] : card.fidelity) {
    text += "| " + plain(name) + " | " + plain(figure) + " |\n";
  }
  if (!card.stages.empty()) {
    text += "\n## Stages\n\n| stage | KL after | kept |\n| --- | --- | --- |\n";
  }
  for (const auto& stage : card.stages) {
    text += "| " + plain(stage.name) + " | " +
        (stage.kl ? formatted("%.4g", *stage.kl) : "-") + " | " +
        (stage.kept ? "yes" : "no") + " |\n";
  }
  return text;
}

std::string origin(const ModelCard& card) {
  std::string text;
  if (!card.command.empty()) {
    text += "\n## Reproduce\n\nMade by\n\n    " +
        one_line(card.command, kMaxCommand) + "\n";
  }
  if (card.recipe) {
    text += std::string(card.command.empty() ? "\n## Reproduce\n" : "") +
        "\n`recipe.json`, beside this card, holds every setting and reproduces "
        "the model bit for bit by the same kind of kernels, which it names, on "
        "any number of threads.\n";
  }
  if (card.report) {
    text +=
        "\n`report.html`, beside this card, shows what was measured, module "
        "by module.\n";
  }
  return text;
}

}  // namespace

std::string model_card(const ModelCard& card) {
  // A hub id is a base model; a folder's path is nobody's business.
  std::error_code ignored;
  auto name = std::filesystem::exists(card.source, ignored)
      ? std::nullopt
      : parse_hub_name(card.source);
  std::string hub_id = name ? name->id : "";
  return front_matter(card, hub_id) + "\n# " +
      plain(name ? card.source : title_of(card.source)) + " for MLX\n\n" +
      card.summary + "\n" +
      (card.packed.empty()
           ? ""
           : "\nOf the source: " + plain(card.packed, 2000) + ".\n") +
      (card.mtp.empty() ? "" : "\n" + card.mtp + "\n") + tables(card) +
      origin(card) +
      "\n## Use\n\nWritten by pennyweight, for mlx-lm:\n\n"
      "    pip install mlx-lm\n"
      "    mlx_lm.generate --model <this folder> --prompt \"Hello\"\n";
}

}  // namespace pennyweight
