#pragma once

#include <filesystem>
#include <string>

namespace pennyweight {

/// invalid_argument when `output` is the folder of the model that is read, or
/// holds it: --force must not replace that.
void check_output(
    const std::string& where,
    const std::filesystem::path& model,
    const std::filesystem::path& output);

}  // namespace pennyweight
