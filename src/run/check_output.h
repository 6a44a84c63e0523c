#pragma once

#include <filesystem>
#include <string>

#include "core/progress.h"

namespace pennyweight {

/// invalid_argument when `output` is the folder of the model that is read, or
/// holds it: --force must not replace that.
void check_output(
    const std::string& where,
    const std::filesystem::path& model,
    const std::filesystem::path& output);

/// What a command that writes a model finds out of folders before it works: an
/// output that is the model, exists (without `force`) or can't be made, which
/// is tried where `first` of the run's processes, and the model's tokenizer are
/// Errors; side files that are left out or odd and a card that can't be read
/// are warnings.
void check_folders(
    const std::string& where,
    const std::filesystem::path& model,
    const std::filesystem::path& output,
    bool force,
    bool first,
    const ProgressFn& progress);

/// Of these, what concerns the model's folder. A tokenizer.json that the
/// program can't read is an Error; so are, where there is none, tokenizer files
/// that are git-LFS pointers, HTML pages or empty.
void check_source(
    const std::string& where,
    const std::filesystem::path& model,
    const ProgressFn& progress);

}  // namespace pennyweight
