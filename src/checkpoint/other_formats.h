#pragma once

#include <filesystem>
#include <string>

namespace pennyweight {

/// What a folder that is no model's holds in place of one, and what to do about
/// it ("NAME is of an adapter: merge it into its base model first"): an
/// adapter, weights of PyTorch's or llama.cpp's form or of another layout, a
/// download that was not ended. Empty where it is none of these.
std::string about_other_formats(const std::filesystem::path& folder);

}  // namespace pennyweight
