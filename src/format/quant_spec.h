#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace pennyweight {

/// How one module is stored: one of MLX's quantization modes.
struct QuantSpec {
  std::string mode = "affine";  // affine, mxfp4, mxfp8, nvfp4
  int bits = 4;
  int group_size = 64;

  bool operator==(const QuantSpec&) const = default;
};

/// The spec with MLX's defaults for what is not given: affine 4 bits group
/// 64; mxfp4 4/32, mxfp8 8/32, nvfp4 4/16. invalid_argument for a mode, width
/// or group that MLX has not.
QuantSpec make_quant_spec(
    const std::string& mode,
    std::optional<int> bits,
    std::optional<int> group_size);

/// "6:64", and "4:32:mxfp4" of a mode that is not affine.
std::string width_name(const QuantSpec& spec);

/// As mlx-lm's config.json holds it, and back (corrupt Error): what an entry
/// does not say is MLX's default.
Json to_json(const QuantSpec& spec);
QuantSpec quant_spec_from_json(const JsonView& json);

/// Whether rows of `in` weights divide into the spec's groups (and, as MLX
/// requires, pack into whole words).
bool fits(const QuantSpec& spec, int64_t in);

/// Bytes of a [out, in] weight under `spec` with scales (and biases) of
/// `scale_bytes` each (2 for bf16; the fp modes hold one byte).
int64_t quantized_bytes(
    const QuantSpec& spec,
    int64_t out,
    int64_t in,
    int scale_bytes);

}  // namespace pennyweight
