#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/model.h"

namespace pennyweight {

/// Heads that predict further tokens (multi-token prediction), with which some
/// programs speculate. No class of mlx-lm reads them, and its loader, which
/// takes model*.safetensors, does not see this file.
inline constexpr const char* kMtpFile = "mtp.safetensors";

struct CarriedHeads {
  int64_t tensors = 0;
  int64_t bytes = 0;
  std::string packed_by{};  // "fp8", "mlx", ...; empty where nothing is packed
};

/// The names of such heads' tensors as the files have them: a packed matrix is
/// carried as it is packed, with scales of activations.
std::vector<std::string> list_mtp(const Model& model);

/// Whether a model's folder has a kMtpFile of its own. Errors of a file that is
/// no safetensors.
bool has_mtp_file(const std::filesystem::path& folder);

/// Writes them to kMtpFile in `folder`, whole or not at all: names, types and
/// bytes as the checkpoint has them. Where it has none, but a kMtpFile beside
/// it (as our outputs have), that is copied. Nothing where there is neither.
/// Where matrices are packed, the file's metadata has `quantization_config`,
/// the source's entry as JSON: the output's config.json is about others.
CarriedHeads carry_mtp(const Model& model, const std::filesystem::path& folder);

/// What a model card says of them; nothing where there are none.
std::string describe_mtp(const CarriedHeads& heads);

}  // namespace pennyweight
