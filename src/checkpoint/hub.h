#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/progress.h"

namespace pennyweight {

/// `org/name[@revision]`: a repository, and a branch, tag or commit of it.
struct HubName {
  std::string id;
  std::string revision = "main";
};

/// None for what can't be such a name.
std::optional<HubName> parse_hub_name(const std::string& text);

/// The local folder of a model. An existing folder is used as it is; else
/// `org/name[@revision]` (a branch, tag or commit; main where none is given)
/// is fetched into the standard Hugging Face cache: HF_HOME, HF_HUB_CACHE,
/// HF_ENDPOINT, HF_TOKEN (or the token file) and HF_HUB_OFFLINE mean what they
/// mean to huggingface_hub. A cut or killed download is resumed; sizes, and
/// checksums where the hub gives a SHA-256, are verified before a file counts.
/// Code is never fetched, and the token goes to the hub's own address only. A
/// commit that is whole in the cache needs no network. The README.md is fetched
/// for its licence, but a snapshot is whole without it.
/// not_found for what is neither folder nor on the hub, io for a network or
/// disk that fails, corrupt for bytes that are not the hub's. Without a
/// network, a snapshot in the cache is used, with a warning.
std::filesystem::path resolve_model(
    const std::string& model,
    const ProgressFn& progress = {});

/// Likewise for a data set: its json, jsonl, parquet and txt files.
std::filesystem::path resolve_dataset(
    const std::string& id,
    const ProgressFn& progress = {});

}  // namespace pennyweight
