#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json_fwd.h"

namespace pennyweight {

/// What of the data gave text and what was left out, rows and files apart.
struct DataUse {
  /// Those left out for one reason: how many, and where the first few are.
  struct Left {
    int64_t count = 0;
    std::vector<std::string> examples;
  };

  int64_t rows = 0;   // rows and chats that gave tokens
  int64_t lines = 0;  // of plain text; each weighs as a row
  int64_t files = 0;
  /// By reason, as in "with null text".
  std::map<std::string, Left> rows_left_out;
  std::map<std::string, Left> files_left_out;

  /// `where` names file and row, `detail` says more where there is more.
  void leave_row(
      const std::string& reason,
      const std::string& where,
      const std::string& detail = "");
  void leave_file(
      const std::string& reason,
      const std::string& name,
      const std::string& detail = "");
  void add(const DataUse& other);

  /// One line each that says what was left out; none where nothing was.
  std::vector<std::string> warnings() const;
};

/// Throws where rows were left out and less than half is left: corrupt, or
/// invalid_argument where it is the model's chat template that refuses them.
/// Empty text does not count against the rest, since it says nothing about
/// whether the data was understood. `name` is the data's.
void require_half(const DataUse& use, const std::string& name);

/// {"rows": {"used", "left_out": {reason: count}}, "files": likewise}.
Json to_json(const DataUse& use);

/// All of it, and back: for a message between processes.
Json pack_use(const DataUse& use);
DataUse unpack_use(const Json& json);

/// Reasons that more than one place gives.
inline constexpr const char* kEmptyText = "with empty text";
inline constexpr const char* kRefusedChat = "refused by the chat template";

}  // namespace pennyweight
