// What compressed-tensors' entry says: groups of modules, each with a scheme,
// and tensors by suffixes that its compressors give them.

#include <cinttypes>
#include <cstdio>

#include "checkpoint/packed/formats.h"
#include "checkpoint/packed/scheme.h"
#include "core/error.h"

namespace pennyweight {

namespace {

constexpr int64_t kMaxBlock = int64_t{1} << 30;

bool is_known(const std::string& format) {
  for (const char* known :
       {"dense",
        "float-quantized",
        "int-quantized",
        "mixed-precision",
        "mxfp4-pack-quantized",
        "mxfp8-quantized",
        "naive-quantized",
        "nvfp4-pack-quantized",
        "pack-quantized"}) {
    if (format == known) {
      return true;
    }
  }
  return false;
}

// [128, 128], or "128x128" as it was written once.
std::vector<double> read_sizes(const JsonView& weights) {
  const Json* given = weights.find("block_structure");
  if (!given || !given->is_string()) {
    return weights.numbers("block_structure");
  }
  int64_t rows = 0;
  int64_t columns = 0;
  int read = 0;
  const auto text = given->get<std::string>();
  const int found = std::sscanf(
      text.c_str(), "%" SCNd64 "x%" SCNd64 "%n", &rows, &columns, &read);
  return found == 2 && size_t(read) == text.size()
      ? std::vector<double>{double(rows), double(columns)}
      : std::vector<double>{};
}

ScaleBlock read_block(const PackedParts& parts, const JsonView& weights) {
  const auto strategy = weights.string_or("strategy", "tensor");
  if (strategy == "tensor") {
    return {.rows = 0};
  }
  if (strategy == "channel") {
    return {};
  }
  if (strategy == "group" || strategy == "tensor_group") {
    return {.rows = 1, .columns = weights.integer("group_size", 1, kMaxBlock)};
  }
  if (strategy == "block") {
    const auto sizes = read_sizes(weights);
    if (sizes.size() == 2 && sizes[0] >= 1 && sizes[1] >= 1 &&
        sizes[0] < double(kMaxBlock) && sizes[1] < double(kMaxBlock)) {
      return {int64_t(sizes[0]), int64_t(sizes[1])};
    }
    parts.unknown("a block_structure that is no pair of sizes");
  }
  parts.unknown("strategy \"" + one_line(strategy, 40) + "\"");
}

PackedScheme read_scheme(const PackedParts& parts, const JsonView& weights) {
  PackedScheme scheme;
  const auto type = weights.string_or("type", "int");
  if (type != "int" && type != "float") {
    parts.unknown("weights of type \"" + one_line(type, 40) + "\"");
  }
  scheme.floating = type == "float";
  scheme.bits = int(weights.integer("num_bits", 1, 32));
  const bool fits = scheme.floating ? scheme.bits == 4 || scheme.bits == 8
                                    : scheme.bits >= 2 && scheme.bits <= 8;
  if (!fits) {
    parts.unknown(
        "weights of " + std::to_string(scheme.bits) + " bits, type " + type);
  }
  scheme.symmetric = weights.boolean_or("symmetric", true);
  scheme.block = read_block(parts, weights);
  return scheme;
}

std::vector<PackedScheme> read_schemes(const PackedParts& parts) {
  const auto settings = parts.settings();
  std::vector<PackedScheme> schemes;
  const auto groups = settings.object("config_groups");
  if (!groups) {
    parts.unknown("no config_groups");
  }
  for (const auto& [name, group] : groups->json().items()) {
    if (!group.is_object()) {
      parts.unknown("a config group that is no object");
    }
    const JsonView view(group, groups->origin() + "." + one_line(name, 40));
    const auto format = view.string_or("format", "dense");
    if (!is_known(format)) {
      parts.unknown("format \"" + one_line(format, 40) + "\"");
    }
    if (const auto weights = view.object("weights")) {
      schemes.push_back(read_scheme(parts, *weights));
    }
  }
  if (schemes.empty()) {
    parts.unknown("no group that quantizes weights");
  }
  return schemes;
}

// Whether an entry says more than that it is not used, as {}, "dense" and an
// empty config_groups do.
bool is_used(const Json* entry) {
  if (!entry || entry->empty()) {
    return false;
  }
  if (!entry->is_object()) {
    return true;
  }
  const auto groups = entry->find("config_groups");
  const bool none = entry->size() == 1 && groups != entry->end() &&
      groups->is_object() && groups->empty();
  return !none && entry->value("format", Json()) != "dense";
}

}  // namespace

void add_compressed_tensors(PackedParts& parts) {
  const auto settings = parts.settings();
  const auto format = settings.string_or("format", "dense");
  if (!is_known(format)) {
    parts.unknown("format \"" + one_line(format, 40) + "\"");
  }
  if (is_used(settings.find("sparsity_config"))) {
    parts.unknown("a sparsity_config");
  }
  if (is_used(settings.find("transform_config"))) {
    parts.unknown("a transform_config");
  }
  const auto schemes = read_schemes(parts);
  std::vector<ScaleBlock> blocks;
  for (const auto& scheme : schemes) {
    if (scheme.floating && scheme.bits == 8) {
      blocks.push_back(scheme.block);
    }
  }
  add_fp4(parts, ".weight_packed", ".weight_global_scale", true);
  add_integers(parts, schemes);
  add_fp8(parts, ".weight_scale", blocks, false);
}

}  // namespace pennyweight
