#pragma once

#include <filesystem>
#include <string>

namespace pennyweight {

/// Says what a folder holds in place of a model that can be read, and what to
/// do about it ("NAME is of an adapter: merge it into its base model first"):
/// an adapter, weights of PyTorch, llama.cpp or a publisher's own layout, or a
/// download that was cut short. Empty where it holds none of these.
std::string about_other_formats(const std::filesystem::path& folder);

}  // namespace pennyweight
