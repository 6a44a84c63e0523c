#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace pennyweight {

inline constexpr const char* kWeightIndex = "model.safetensors.index.json";

/// What a folder's index says of where tensors are. mlx-lm never reads it, so
/// that it helps where it is right and stops nothing where it is wrong.
struct WeightIndex {
  std::map<std::string, std::string> places;  // tensor -> file name
  std::optional<std::string> fault;           // why nothing of it can be read
  int64_t odd = 0;  // entries that name no safetensors file

  std::set<std::string> files() const;
  /// The file that `tensor` is in; empty where the index does not say.
  std::string place_of(const std::string& tensor) const;
};

/// An index that is absent has no places and no fault. corrupt Error for a file
/// name that points outside the folder.
WeightIndex read_weight_index(const std::filesystem::path& folder);

/// `model-00002-of-00003.safetensors`: the names of all three; else none.
std::vector<std::string> siblings_of(const std::string& name);

/// "a, b, c and 7 more".
std::string some_of(const std::vector<std::string>& names, size_t most = 3);

}  // namespace pennyweight
