#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/json_fwd.h"

namespace pennyweight {

/// Parses untrusted text as Python's json does: of a key that is repeated the
/// last value counts; NaN, Infinity, -Infinity and numbers past the range of a
/// double (1e999) become non-finite floats. A byte-order mark is passed over.
/// Refuses (corrupt) what is not JSON, nests deeper than 64 levels or has more
/// than 20,000 keys in an object (finding one in a Json takes a walk past the
/// others); `name` is the file named in the Error. What is a git-LFS pointer,
/// an HTML page or nothing at all is called that.
///
/// dump() writes null for a non-finite float: before a Json that may hold one
/// is written, tag_floats() has to make it what its reader understands.
Json parse_json(std::string_view text, const std::string& name);

/// For an object of any number of keys, such as an index of tensors.
using SortedJson = nlohmann::json;
SortedJson parse_sorted_json(std::string_view text, const std::string& name);

/// Reads and parses a file of at most `limit` bytes (not_found, io, corrupt).
Json read_json(
    const std::filesystem::path& path,
    size_t limit = size_t{256} << 20);

/// Whether Python's json.loads takes it.
bool is_python_json(std::string_view text);

/// Non-finite floats as transformers and mlx-lm (mlx_lm/utils.py,
/// _encode_tagged_floats) write them in a config.json, {"__float__": "NaN"},
/// "Infinity" or "-Infinity"; and back.
Json tag_floats(Json json);
Json untag_floats(Json json);

/// A JSON object with its origin, whose getters check type and range and
/// throw a corrupt Error that names origin and key. A JSON null counts as
/// absent, as in transformers' configs.
class JsonView {
 public:
  JsonView(const Json& object, std::string origin);

  /// A view of the same object that notes each key it is asked for in
  /// `reads`, which must outlive it.
  JsonView recorded(std::set<std::string>& reads) const;
  /// The same view of another object, such as a changed copy of its own.
  JsonView like(const Json& object) const;

  bool has(const std::string& key) const;
  const Json* find(const std::string& key) const;

  int64_t integer(const std::string& key, int64_t low, int64_t high) const;
  int64_t integer_or(
      const std::string& key,
      int64_t fallback,
      int64_t low,
      int64_t high) const;
  double number(const std::string& key) const;
  double number_or(const std::string& key, double fallback) const;
  bool boolean_or(const std::string& key, bool fallback) const;
  std::string string(const std::string& key) const;
  std::string string_or(const std::string& key, const std::string& fallback)
      const;
  std::vector<double> numbers(const std::string& key) const;
  std::optional<JsonView> object(const std::string& key) const;

  const std::string& origin() const {
    return origin_;
  }
  const Json& json() const {
    return *object_;
  }

 private:
  [[noreturn]] void wrong(const std::string& key, const char* expected) const;
  const Json& require(const std::string& key) const;

  const Json* object_;
  std::string origin_;
  std::set<std::string>* reads_ = nullptr;
};

}  // namespace pennyweight
