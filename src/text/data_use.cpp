#include "text/data_use.h"

#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kExamples = 3;
constexpr size_t kReasons = 6;

void leave(
    std::map<std::string, DataUse::Left>& left,
    const std::string& reason,
    const std::string& where,
    const std::string& detail) {
  auto& entry = left[reason];
  ++entry.count;
  if (entry.examples.size() < kExamples) {
    entry.examples.push_back(where + (detail.empty() ? "" : ": " + detail));
  }
}

void merge(
    std::map<std::string, DataUse::Left>& into,
    const std::map<std::string, DataUse::Left>& from) {
  for (const auto& [reason, left] : from) {
    auto& entry = into[reason];
    entry.count += left.count;
    for (const auto& example : left.examples) {
      if (entry.examples.size() < kExamples) {
        entry.examples.push_back(example);
      }
    }
  }
}

int64_t total(const std::map<std::string, DataUse::Left>& left) {
  int64_t count = 0;
  for (const auto& [reason, entry] : left) {
    count += entry.count;
  }
  return count;
}

/// "2 with null text (a.jsonl, line 4; a.jsonl, line 9), 1 ..."
std::string describe(
    const std::map<std::string, DataUse::Left>& left,
    size_t limit) {
  std::string text;
  size_t shown = 0;
  for (const auto& [reason, entry] : left) {
    if (shown == kReasons) {
      return text + ", and others";
    }
    text += (shown++ == 0 ? "" : ", ") + std::to_string(entry.count) + " " +
        reason + " (";
    for (size_t i = 0; i < entry.examples.size(); ++i) {
      text += (i == 0 ? "" : "; ") + one_line(entry.examples[i], limit);
    }
    const auto shown_here = static_cast<int64_t>(entry.examples.size());
    text += entry.count > shown_here ? "; and more)" : ")";
  }
  return text;
}

std::string rows_of(const DataUse& use) {
  const int64_t left = total(use.rows_left_out);
  return std::to_string(left) + " of " + std::to_string(use.rows + left) +
      " rows: " + describe(use.rows_left_out, 200);
}

Json counts(const std::map<std::string, DataUse::Left>& left) {
  Json json = Json::object();
  for (const auto& [reason, entry] : left) {
    json[reason] = entry.count;
  }
  return json;
}

using AllLeft = std::map<std::string, DataUse::Left>;

Json pack(const AllLeft& left) {
  Json json = Json::array();
  for (const auto& [reason, entry] : left) {
    json.push_back({reason, entry.count, entry.examples});
  }
  return json;
}

AllLeft unpack(const Json& json) {
  AllLeft left;
  for (const Json& entry : json) {
    left[entry.at(0).get<std::string>()] = {
        entry.at(1).get<int64_t>(),
        entry.at(2).get<std::vector<std::string>>()};
  }
  return left;
}

}  // namespace

void DataUse::leave_row(
    const std::string& reason,
    const std::string& where,
    const std::string& detail) {
  leave(rows_left_out, reason, where, detail);
}

void DataUse::leave_file(
    const std::string& reason,
    const std::string& name,
    const std::string& detail) {
  leave(files_left_out, reason, name, detail);
}

void DataUse::add(const DataUse& other) {
  rows += other.rows;
  lines += other.lines;
  files += other.files;
  merge(rows_left_out, other.rows_left_out);
  merge(files_left_out, other.files_left_out);
}

std::vector<std::string> DataUse::warnings() const {
  std::vector<std::string> texts;
  if (!rows_left_out.empty()) {
    texts.push_back("left out " + rows_of(*this));
  }
  if (!files_left_out.empty()) {
    const int64_t left = total(files_left_out);
    texts.push_back(
        "left out " + std::to_string(left) + " of " +
        std::to_string(files + left) +
        " files: " + describe(files_left_out, 200));
  }
  return texts;
}

void require_half(const DataUse& use, const std::string& name) {
  int64_t left = 0;
  bool refused = true;
  for (const auto& [reason, entry] : use.rows_left_out) {
    if (reason != kEmptyText) {
      left += entry.count;
      refused = refused && reason == kRefusedChat;
    }
  }
  if (left <= use.rows + use.lines) {
    return;
  }
  throw Error(
      refused ? ErrorCode::invalid_argument : ErrorCode::corrupt,
      "data",
      name + ": less than half of the rows can be used; left out are " +
          rows_of(use));
}

Json to_json(const DataUse& use) {
  return {
      {"rows", {{"used", use.rows}, {"left_out", counts(use.rows_left_out)}}},
      {"files",
       {{"used", use.files}, {"left_out", counts(use.files_left_out)}}}};
}

Json pack_use(const DataUse& use) {
  return {
      {"rows", use.rows},
      {"lines", use.lines},
      {"files", use.files},
      {"rows_left_out", pack(use.rows_left_out)},
      {"files_left_out", pack(use.files_left_out)}};
}

DataUse unpack_use(const Json& json) {
  return {
      json.at("rows"),
      json.at("lines"),
      json.at("files"),
      unpack(json.at("rows_left_out")),
      unpack(json.at("files_left_out"))};
}

}  // namespace pennyweight
