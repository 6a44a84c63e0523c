#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace pennyweight {

inline constexpr const char* kWeightIndex = "model.safetensors.index.json";

/// A folder's index, which says which file holds each tensor. mlx-lm never
/// reads it: it helps where it is right, and stops nothing where it is wrong.
struct WeightIndex {
  std::map<std::string, std::string> places;  // tensor -> file name
  std::optional<std::string> fault;           // why the file can't be read
  int64_t odd = 0;  // how many entries name no safetensors file

  /// All files that the index names.
  std::set<std::string> files() const;
  /// The file that `tensor` is in; empty where the index does not say.
  std::string place_of(const std::string& tensor) const;
};

/// Reads a folder's index. One that is absent has no places and no fault.
/// corrupt Error for a file name that points outside the folder.
WeightIndex read_weight_index(const std::filesystem::path& folder);

/// The names of all files of a numbered set, to which `name` belongs: all three
/// for `model-00002-of-00003.safetensors`. Empty for a name of another form.
std::vector<std::string> siblings_of(const std::string& name);

/// The first `most` of some names, and how many more there are: "a, b, c and 7
/// more".
std::string some_of(const std::vector<std::string>& names, size_t most = 3);

}  // namespace pennyweight
