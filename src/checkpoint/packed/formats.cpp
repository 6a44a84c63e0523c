#include "checkpoint/packed/formats.h"

#include "checkpoint/packed/group_words.h"
#include "checkpoint/packed/scheme.h"
#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

namespace {

constexpr ScaleBlock kWhole{.rows = 0, .columns = 0};
constexpr ScaleBlock kRows{.rows = 1, .columns = 0};
constexpr ScaleBlock kBlocks{.rows = 128, .columns = 128};
constexpr ScaleBlock kGroups{.rows = 1, .columns = 32};
constexpr const char* kInverse = ".weight_scale_inv";
constexpr const char* kPlain = ".weight_scale";

// Both names of scales, of which the first one is what mlx-lm reads. The other
// ends a stack's name, too ("experts.down_proj_scale_inv").
void add_both(PackedParts& parts, const std::vector<ScaleBlock>& blocks) {
  add_fp8(parts, "_scale_inv", blocks, true);
  add_fp8(parts, kPlain, blocks, false);
}

// DeepSeek's FP8, which transformers writes for all models.
void add_block_fp8(PackedParts& parts) {
  const auto settings = parts.settings();
  const auto fmt = settings.string_or("fmt", "e4m3");
  if (fmt != "e4m3" && fmt != "float8_e4m3fn") {
    parts.unknown("fmt \"" + one_line(fmt, 40) + "\"");
  }
  auto block = kBlocks;
  if (settings.has("weight_block_size")) {
    const auto sizes = settings.numbers("weight_block_size");
    const auto fits = [](double size) { return size >= 1 && size < 1 << 20; };
    if (sizes.size() != 2 || !fits(sizes[0]) || !fits(sizes[1])) {
      parts.unknown("a weight_block_size that is no pair of sizes");
    }
    block = {int64_t(sizes[0]), int64_t(sizes[1])};
  }
  add_both(parts, {block, kRows});
}

void add_fbgemm(PackedParts& parts) {
  add_both(parts, {kRows});
}

void add_mxfp8(PackedParts& parts) {
  add_both(parts, {kGroups});
}

std::vector<ScaleBlock> modelopt_blocks(
    const PackedParts& parts,
    const std::string& algorithm) {
  if (algorithm == "FP8") {
    return {kWhole};
  }
  if (algorithm == "FP8_PER_CHANNEL_PER_TOKEN") {
    return {kRows};
  }
  if (algorithm == "FP8_PB_WO" || algorithm == "FP8_BLOCK_SCALES") {
    return {kBlocks};
  }
  if (algorithm == "MXFP8") {
    return {kGroups};
  }
  if (algorithm == "NVFP4" || algorithm == "MIXED_PRECISION") {
    return {kWhole, kRows, kBlocks, kGroups};
  }
  parts.unknown("quant_algo \"" + one_line(algorithm, 40) + "\"");
}

void add_modelopt(PackedParts& parts) {
  const auto settings = parts.settings();
  const auto algorithm = settings.string("quant_algo");
  const auto blocks = modelopt_blocks(parts, algorithm);
  const auto group = settings.integer_or("group_size", 16, 0, 1 << 20);
  if (algorithm == "NVFP4" && group != 16) {
    parts.unknown("groups of " + std::to_string(group));
  }
  add_fp4(parts, ".weight", ".weight_scale_2", false);
  add_fp8(parts, kPlain, blocks, false);
  // Blocks that stayed as they were published, DeepSeek's.
  add_fp8(parts, "_scale_inv", {kBlocks}, true);
}

// AutoRound writes the packs of others, and GPTQ's with zeros as they are.
// Older entries name the program that multiplies by them.
void add_auto_round(PackedParts& parts) {
  const auto settings = parts.settings();
  const auto packing = lower_case(
      settings.string_or("packing_format", settings.string_or("backend", "")));
  const auto names = [&](const char* part) {
    return packing.find(part) != packing.npos;
  };
  if (names("awq")) {
    add_awq(parts);
  } else if (names("fp8")) {
    add_block_fp8(parts);
  } else if (names("llm_compressor")) {
    add_fp4(parts, ".weight_packed", ".weight_global_scale", true);
    add_fp8(parts, kPlain, {kWhole, kRows, kBlocks, kGroups}, false);
  } else if (packing == "auto_round" || names("gptqmodel")) {
    add_gptq(parts, false);
  } else if (names("gptq")) {
    add_gptq(parts, true);
  } else {
    parts.unknown("packing_format \"" + one_line(packing, 40) + "\"");
  }
}

struct Named {
  const char* method;
  PackedFormat format;
};

constexpr Named kFormats[] = {
    {"auto-round", {add_auto_round, kPlain}},
    {"awq", {add_awq, kPlain}},
    {"compressed-tensors", {add_compressed_tensors, kPlain}},
    {"fbgemm_fp8", {add_fbgemm, kPlain}},
    {"fp8", {add_block_fp8, kInverse}},
    {"gptq", {add_gptq, kPlain}},
    {"intel/auto-round", {add_auto_round, kPlain}},
    {"modelopt", {add_modelopt, kPlain}},
    {"mxfp8", {add_mxfp8, kInverse}},
};

std::string string_of(const Json& entry, const char* key) {
  const auto it = entry.find(key);
  return it != entry.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string name_of(const Json& entry) {
  const auto name = lower_case(string_of(entry, "quant_method"));
  if (name.starts_with("modelopt") ||
      (name.empty() && !string_of(entry, "quant_algo").empty())) {
    return "modelopt";
  }
  // Its first entries did not say whose they are.
  return name.empty() && entry.contains("config_groups") ? "compressed-tensors"
                                                         : name;
}

}  // namespace

const PackedFormat* global_scale_format() {
  static constexpr PackedFormat format{add_global_fp4, kPlain};
  return &format;
}

const Json& packed_settings(const Json& entry) {
  const auto it = entry.find("quantization");
  return it != entry.end() && it->is_object() ? *it : entry;
}

const PackedFormat* packed_format(const Json& entry) {
  if (!entry.is_object()) {
    return nullptr;
  }
  const auto name = name_of(packed_settings(entry));
  for (const auto& known : kFormats) {
    if (name == known.method) {
      return &known.format;
    }
  }
  return nullptr;
}

}  // namespace pennyweight
