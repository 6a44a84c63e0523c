#pragma once

#include <string>
#include <vector>

#include "model/families/standard.h"

/// What families share whose blocks mix tokens by more than attention.
namespace pennyweight {

/// The names by layer under `key`; empty where it is absent. A corrupt Error
/// where they are not `layers` strings.
std::vector<std::string>
read_layer_names(const JsonView& config, const char* key, int layers);

/// The hub has convolutions [channels, 1, width]; mlx-lm turns them to
/// [channels, width, 1], which is what `name` is, unless it stands so already.
void add_convolution_source(
    const FamilyInput& input,
    const std::string& name,
    DecoderSpec& spec);

/// rope_theta, for which a class takes that of rope_parameters where there is
/// one, and makes nothing of the rest; a scaling is noted. Where both are there
/// they must agree (corrupt Error).
void read_hybrid_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec);

/// The sizes of a scan, by whatever keys a config has them.
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

/// An integer within what any model's scan has.
int read_scan_size(const JsonView& config, const char* key);

/// dt's bounds from time_step_limit, [least, most]; `least` and `most` where it
/// is absent.
void read_time_limit(
    const JsonView& config,
    float least,
    float most,
    ScanShape& shape);

/// A scan under `path` (which ends with a dot): in_proj, conv1d, A_log,
/// dt_bias, D, and where the convolution stands in the checkpoint. Without its
/// norm. A corrupt Error where the groups do not divide the heads.
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
