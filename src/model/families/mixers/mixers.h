#pragma once

#include <string>
#include <vector>

#include "model/families/standard.h"

/// Helpers of families whose blocks mix tokens by scans or convolutions.
namespace pennyweight {

/// The list of strings under `key`, one for each layer; empty where it is
/// absent. corrupt Error where it is something else.
std::vector<std::string>
read_layer_names(const JsonView& config, const char* key, int layers);

/// Adds the source of a convolution's weight `name`, [channels, width, 1] in
/// mlx-lm and [channels, 1, width] on the hub, if the checkpoint has the
/// latter.
void add_convolution_source(
    const FamilyInput& input,
    const std::string& name,
    DecoderSpec& spec);

/// Reads rope_theta from the config or its rope_parameters, which must agree if
/// both have it (corrupt Error). These classes use no scaling: one is noted.
void read_hybrid_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec);

/// The sizes of a scan, for which each family has keys of its own.
struct ScanShape {
  int64_t hidden = 0;
  int heads = 0;
  int head_dim = 0;
  int groups = 0;
  int state = 0;
  int width = 0;  // of the convolution
  bool bias = false;
  bool conv_bias = false;
  float dt_least = 0;
  float dt_most = 0;
};

/// The keys that have these sizes in a config. A bias is false where its key is
/// absent.
struct ScanKeys {
  const char* heads;
  const char* head_dim;
  const char* groups;
  const char* state;
  const char* width;
  const char* bias;
  const char* conv_bias;
};
inline constexpr ScanKeys kMambaKeys{
    "mamba_n_heads",
    "mamba_d_head",
    "mamba_n_groups",
    "mamba_d_state",
    "mamba_d_conv",
    "mamba_proj_bias",
    "mamba_conv_bias"};
ScanShape
read_scan_shape(const JsonView& config, int64_t hidden, const ScanKeys& keys);

/// Reads dt's bounds from time_step_limit, [least, most]; takes `least` and
/// `most` where it is absent.
void read_time_limit(
    const JsonView& config,
    float least,
    float most,
    ScanShape& shape);

/// A scan without its norm, of the modules in_proj, conv1d, A_log, dt_bias and
/// D under `path`, which ends with a dot; adds the source of its convolution.
/// corrupt Error where the groups do not divide the heads.
ScanSpec make_scan(
    const FamilyInput& input,
    const std::string& path,
    const ScanShape& shape,
    DecoderSpec& spec);

/// The scan's norm `path`norm, over all its channels.
NormSpec scan_norm(const std::string& path, const ScanShape& shape, float eps);

/// A scan in place of attention, with the linear `path`out_proj behind it.
AttentionSpec
scan_layer(const std::string& path, const ScanShape& shape, ScanSpec scan);

}  // namespace pennyweight
