#include "format/quant_spec.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

struct FixedMode {
  const char* name;
  int bits;
  int group_size;
};
// The fp modes have one shape each.
constexpr FixedMode kFixedModes[] = {
    {"mxfp4", 4, 32},
    {"mxfp8", 8, 32},
    {"nvfp4", 4, 16},
};
constexpr std::array kAffineBits{2, 3, 4, 5, 6, 8};
constexpr std::array kAffineGroups{32, 64, 128};

[[noreturn]] void invalid(const std::string& what) {
  throw argument_error("quantization", what);
}

}  // namespace

QuantSpec make_quant_spec(
    const std::string& mode,
    std::optional<int> bits,
    std::optional<int> group_size) {
  for (const auto& fixed : kFixedModes) {
    if (mode == fixed.name) {
      if (bits.value_or(fixed.bits) != fixed.bits ||
          group_size.value_or(fixed.group_size) != fixed.group_size) {
        invalid(
            mode + " has " + std::to_string(fixed.bits) +
            " bits in groups of " + std::to_string(fixed.group_size) +
            " and nothing else");
      }
      return {mode, fixed.bits, fixed.group_size};
    }
  }
  if (mode != "affine") {
    invalid(
        "there is no mode \"" + one_line(mode, 40) +
        "\"; choose affine, mxfp4, mxfp8 or nvfp4");
  }
  QuantSpec spec{mode, bits.value_or(4), group_size.value_or(64)};
  if (std::ranges::find(kAffineBits, spec.bits) == kAffineBits.end()) {
    invalid(
        "affine has no " + std::to_string(spec.bits) +
        " bits; choose 2, 3, 4, 5, 6 or 8");
  }
  if (std::ranges::find(kAffineGroups, spec.group_size) ==
      kAffineGroups.end()) {
    invalid(
        "affine has no groups of " + std::to_string(spec.group_size) +
        "; choose 32, 64 or 128");
  }
  return spec;
}

Json to_json(const QuantSpec& spec) {
  Json json;
  json["group_size"] = spec.group_size;
  json["bits"] = spec.bits;
  json["mode"] = spec.mode;
  return json;
}

std::string width_name(const QuantSpec& spec) {
  return std::to_string(spec.bits) + ":" + std::to_string(spec.group_size) +
      (spec.mode == "affine" ? "" : ":" + spec.mode);
}

QuantSpec quant_spec_from_json(const JsonView& json) {
  auto mode = json.string_or("mode", "affine");
  const auto number = [&](const char* key, int64_t most) {
    return json.has(key) ? std::optional(int(json.integer(key, 1, most)))
                         : std::nullopt;
  };
  const auto bits = number("bits", 32);
  const auto group = number("group_size", 1 << 20);
  try {
    return make_quant_spec(mode, bits, group);
  } catch (const Error& error) {
    throw corrupt_error("quantization", json.origin() + ": " + error.what());
  }
}

bool fits(const QuantSpec& spec, int64_t in) {
  return in > 0 && in % spec.group_size == 0;
}

int64_t quantized_bytes(
    const QuantSpec& spec,
    int64_t out,
    int64_t in,
    int scale_bytes) {
  int64_t codes = out * in * spec.bits / 8;
  int64_t groups = out * (in / spec.group_size);
  return codes + groups * (spec.mode == "affine" ? 2 * scale_bytes : 1);
}

}  // namespace pennyweight
